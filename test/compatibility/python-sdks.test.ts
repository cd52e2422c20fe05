/**
 * The Python clients, where Python has them: the script beside this file against a live server. PYTHON names another
 * interpreter. What cannot run is said aloud, never passed over.
 */

import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { type RunningServer, startServer } from "../../src/server/listen.ts";
import { harness, says } from "../server/harness.ts";

const PYTHON = process.env.PYTHON ?? "python3";
const SCRIPT = join(import.meta.dir, "python_sdks.py");
const made = harness({ script: () => says("Hello there, caf\u00e9 \u{1f600}!", { tokensPerStep: 2 }) });
let server: RunningServer;

beforeAll(() => {
  server = startServer({ hostname: "127.0.0.1", port: 0, models: made.models, settings: made.settings });
});
afterAll(() => server.stop(0));

test("every check of the script that can run passes", async () => {
  if (Bun.which(PYTHON) === null) {
    console.warn(`NOT RUN: the clients for Python, because there is no ${PYTHON}.`);
    return;
  }
  const child = Bun.spawn([PYTHON, SCRIPT, server.url], { stdout: "pipe", stderr: "pipe" });
  const [output, errors] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  const lines = output.trimEnd().split("\n");
  for (const line of lines) if (line.startsWith("NOT RUN")) console.warn(line);
  expect(`${output}${errors}`).not.toContain("FAILED");
  expect(child.exitCode).toBe(0);
  expect(lines.every((line) => /^(ok|NOT RUN) /.test(line))).toBe(true);
}, 60_000);
