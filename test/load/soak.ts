/**
 * Many tiny requests with clients that leave, by hand: `bun test/load/soak.ts [--requests 10000] [--clients 24] [--json]`.
 * Prints the memory of the server and of its engine as the requests go by, and whether everything came back. Ends with
 * status 1 when something is held or was answered otherwise than it should be.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { LOOPBACK, startServing } from "../cli/processes.ts";
import { soak } from "../engine/soak.ts";
import { writeTinyModel } from "../support/tiny-model.ts";

const { values } = parseArgs({
  options: {
    requests: { type: "string", default: "10000" },
    clients: { type: "string", default: "24" },
    json: { type: "boolean", default: false },
  },
});

const folder = mkdtempSync(join(tmpdir(), "mistral-soak-"));
const model = join(folder, "tiny");
writeTinyModel(model);
const { child, url } = await startServing(["serve", "-m", model, "--threads", "1", ...LOOPBACK]);
try {
  const result = await soak({
    url,
    pid: child.pid,
    requests: Number(values.requests),
    clients: Number(values.clients),
    onSample: ({ requests, serverBytes, engineBytes }) => {
      if (values.json) return;
      const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
      console.log(
        `${String(requests).padStart(6)} requests: server ${megabytes(serverBytes)}, engine ${megabytes(engineBytes)}`,
      );
    },
  });
  if (values.json) console.log(JSON.stringify(result));
  else {
    const { samples, ...rest } = result;
    console.log(JSON.stringify(rest, null, 1), `${samples.length} samples`);
  }
  child.kill("SIGTERM");
  const status = await child.exited;
  if (status !== 0) throw new Error(`the server ended with ${status}`);
} finally {
  child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}
