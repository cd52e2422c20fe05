/**
 * Many tiny requests with clients that leave, by hand: `bun test/load/soak.ts [--requests 10000] [--clients 24] [--json]`.
 * They come in five waves with a rest after each, in which a server gives back what the wave left behind; the memory of
 * the server and of its engine at rest is what has to stay. Ends with status 1 when it does not, when a block or a
 * sequence is held, or when a request is answered otherwise than it should be.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { LOOPBACK, residentBytes, startServing } from "../cli/processes.ts";
import { engineProcesses } from "../engine/live.ts";
import { soak } from "../engine/soak.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const { values } = parseArgs({
  options: {
    requests: { type: "string", default: "10000" },
    clients: { type: "string", default: "24" },
    json: { type: "boolean", default: false },
  },
});
const WAVES = 5;
const REST_MS = 3_500;
/** From the first rest, after which everything has been compiled and grown, to the last. */
const GROWTH_MAX_BYTES = 15e6;

interface Wave {
  readonly answered: number;
  readonly aborted: number;
  readonly seconds: number;
  /** The most while it lasted, and what was left at rest. */
  readonly peakBytes: number;
  readonly serverBytes: number;
  readonly engineBytes: number;
}

const folder = mkdtempSync(join(tmpdir(), "mistral-soak-"));
const model = join(folder, "tiny");
writeTinyModel(model);
const { child, url } = await startServing(["serve", "-m", model, "--threads", "1", ...LOOPBACK]);
const waves: Wave[] = [];
try {
  const [engine] = await engineProcesses(child.pid);
  const requests = Math.ceil(Number(values.requests) / WAVES);
  for (let wave = 0; wave < WAVES; wave++) {
    const result = await soak({ url, pid: child.pid, requests, clients: Number(values.clients) });
    await Bun.sleep(REST_MS);
    const { answered, aborted, seconds, samples } = result;
    const made: Wave = {
      answered,
      aborted,
      seconds,
      peakBytes: Math.max(...samples.map(({ serverBytes, engineBytes }) => serverBytes + engineBytes)),
      serverBytes: residentBytes(child.pid),
      engineBytes: residentBytes(engine!),
    };
    waves.push(made);
    if (values.json) continue;
    const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
    console.log(
      `wave ${wave + 1}: ${answered} answered, ${aborted} left, ${seconds.toFixed(1)} s; at most ${megabytes(made.peakBytes)}; at rest server ${megabytes(made.serverBytes)}, engine ${megabytes(made.engineBytes)}`,
    );
  }
  child.kill("SIGTERM");
  const status = await child.exited;
  if (status !== 0) throw new Error(`the server ended with ${status}`);
} finally {
  child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}
const [first, last] = [waves[0]!, waves.at(-1)!];
const growthBytes = last.serverBytes + last.engineBytes - first.serverBytes - first.engineBytes;
if (values.json) console.log(JSON.stringify({ growth_bytes: growthBytes, waves }));
else
  console.log(
    `memory at rest grew by ${(growthBytes / 1e6).toFixed(1)} MB; ledger clean, every request accounted for`,
  );
if (growthBytes > GROWTH_MAX_BYTES) throw new Error(`memory at rest grew by ${growthBytes} bytes`);
