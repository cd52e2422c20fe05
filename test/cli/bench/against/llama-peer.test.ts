/** The program that drives llama.cpp: it is compiled, and its refusals, which need no llama.cpp. */

import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { llamaPeer } from "../../../../src/cli/bench/against/llama.ts";
import { PeerProcess } from "../../../../src/cli/bench/against/peer-process.ts";
import { zigExecutable } from "../../../../src/cli/setup/kernels.ts";
import { runTool } from "../../../../src/cli/setup/tool.ts";
import { PROJECT_ROOT } from "../../../../src/cli/setup.ts";
import { expectMistralRejection } from "../../../support/expect-error.ts";
import { temporaryFolder } from "../../../support/temporary-folder.ts";

const folder = temporaryFolder("llama-peer");
const source = join(PROJECT_ROOT, "src/cli/bench/against/llama-peer.c");
const OPTIONS = {
  path: "model.gguf",
  threads: 1,
  sequences: 1,
  contextLength: 64,
  kvCacheType: "f16",
} as const;

async function compile(what: string, path: string, flags: readonly string[] = []): Promise<string> {
  const out = join(folder, what);
  const { status, stderr } = await runTool(
    [zigExecutable(PROJECT_ROOT), "cc", ...flags, path, "-o", out],
    folder,
  );
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return out;
}

describe("llama-peer.c", () => {
  test("compiles without a warning and refuses what is no llama.cpp", async () => {
    const program = await compile("llama-peer", source, ["-Wall", "-Wextra", "-Werror"]);
    const usage = await runTool([program], folder);
    expect(usage).toMatchObject({ status: 2, stdout: "" });
    expect(usage.stderr).toStartWith("llama-peer LIBRARY BACKENDS MODEL THREADS");

    const missing = { name: "", program, library: join(folder, "nothing.so") };
    const refusal = llamaPeer(missing).start(OPTIONS).ready();
    await expectMistralRejection(refusal, "invalid_configuration", "status 2: cannot load llama.cpp: ");

    const empty = join(folder, "empty.c");
    writeFileSync(empty, "int nothing(void) { return 0; }\n");
    const library = await compile("empty.so", empty, ["-shared", "-fPIC"]);
    await expectMistralRejection(
      llamaPeer({ ...missing, library })
        .start(OPTIONS)
        .ready(),
      "invalid_configuration",
      "empty.so has no function llama_version",
    );
  }, 120_000);
});

test("a process that dies is told of with how it ended", async () => {
  const program = join(folder, "dies.sh");
  writeFileSync(program, '#!/bin/sh\necho \'{"release": "x"}\'\nread line\nkill -9 $$\n', { mode: 0o755 });
  const peer = new PeerProcess("llama.cpp", [program]);
  expect(await peer.ready()).toMatchObject({ release: "x" });
  await expectMistralRejection(
    peer.prefill(1),
    "invalid_configuration",
    "it ended with SIGKILL: it said nothing",
  );
  await peer.close();
});
