import { expect, test } from "bun:test";
import { join } from "node:path";
import { PROJECT_ROOT } from "../../src/cli/setup.ts";
import { childEnvironment } from "./processes.ts";

interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command as a process of its own, as a user would. */
async function run(
  commandArguments: readonly string[],
  environment: Record<string, string> = {},
): Promise<Outcome> {
  const child = Bun.spawn([process.execPath, join(PROJECT_ROOT, "src/cli/main.ts"), ...commandArguments], {
    env: childEnvironment(environment),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { status, stdout, stderr };
}

test("bad configuration ends with status 2 and one line that says what, where and what is allowed", async () => {
  const cases: [string[], Record<string, string>, string][] = [
    [["srve"], {}, "error: unknown command 'srve' (Did you mean serve?)\n"],
    [
      ["serve", "texts"],
      {},
      'error: argument kind has the value "texts"; allowed: one of auto, text, multimodal, diffusion, speech, embedding (did you mean text?)\n',
    ],
    [["serve", "--prot", "1"], {}, "error: unknown option '--prot' (Did you mean --port?)\n"],
    [
      ["serve", "--port", "99999"],
      {},
      'error: flag --port has the value "99999"; allowed: a whole number from 0 to 65535\n',
    ],
    [
      ["serve", "--pa-cache-type", "f61"],
      {},
      'error: flag --pa-cache-type has the value "f61"; allowed: one of auto, f16, bf16, f32, f8e4m3 (did you mean f16?)\n',
    ],
    [
      ["bench"],
      { RAYON_NUM_THREADS: "many" },
      'error: variable RAYON_NUM_THREADS has the value "many"; allowed: a whole number from 1 to 1024\n',
    ],
    [
      ["serve"],
      { HF_ENDPOINT: "hub.example.com" },
      'error: variable HF_ENDPOINT has the value "hub.example.com"; allowed: an address that starts with http:// or https://\n',
    ],
  ];
  const outcomes = await Promise.all(
    cases.map(([commandArguments, environment]) => run(commandArguments, environment)),
  );
  for (const [index, [, , message]] of cases.entries()) {
    expect(outcomes[index]).toEqual({ status: 2, stdout: "", stderr: message });
  }
});

test("quantize says what it will do, whatever its flags", async () => {
  for (const flags of [[], ["-m", "a/b", "--isq", "q4k", "-o", "out.uqff"]]) {
    const { status, stdout, stderr } = await run(["quantize", ...flags]);
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
    expect(stderr).toStartWith("error: quantize is not built yet. It will write UQFF files");
    expect(stderr.split("\n")).toHaveLength(2);
  }
  expect((await run(["quantize", "--isqq", "q4k"])).stderr).toContain("unknown option '--isqq'");
});

test("help and version go to stdout with status 0", async () => {
  const [help, version] = await Promise.all([run(["serve", "--help"]), run(["--version"])]);
  expect(help).toMatchObject({ status: 0, stderr: "" });
  expect(help.stdout).toContain("--max-num-batched-tokens");
  expect(version).toMatchObject({ status: 0, stderr: "" });
  expect(version.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});

test("a model that is not there ends with status 1 and its name", async () => {
  const outcomes = await Promise.all([
    run(["serve", "--port", "0", "-f", "./no-such.gguf"]),
    run(["bench", "-m", "./nowhere"]),
  ]);
  for (const [index, name] of ["no-such.gguf", "nowhere"].entries()) {
    const { status, stdout, stderr } = outcomes[index]!;
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
    expect(stderr).toContain(name);
    expect(stderr).not.toMatch(/\n\s+at /);
  }
});

test("an address in use is said before anything is loaded", async () => {
  const holder = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  try {
    const started = performance.now();
    const outcome = await run(["serve", "--host", "127.0.0.1", "--port", String(holder.port)]);
    expect(outcome.status).toBe(2);
    expect(outcome.stderr).toContain(`cannot listen on 127.0.0.1:${holder.port}`);
    expect(performance.now() - started).toBeLessThan(5_000);
  } finally {
    holder.stop(true);
  }
});
