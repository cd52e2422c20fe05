/**
 * One comparison for `reach.ts`, in a process of its own: `measure.ts WORK FLAGS...` prints its JSON. Flags are those
 * of `bench --against`; the work is given apart, for it is not every depth by every number of sequences.
 */

import packageJson from "../../../package.json" with { type: "json" };
import { compareEngines } from "../../../src/cli/bench/against/against.ts";
import type { AgainstWork } from "../../../src/cli/bench/against/arena.ts";
import { parseCommandLine } from "../../../src/cli/command-line.ts";
import { openLog } from "../../../src/cli/log.ts";
import { resolveSettings } from "../../../src/config/resolve.ts";

const [work, ...flags] = process.argv.slice(2);
if (work === undefined) throw new Error("measure.ts WORK FLAGS...");
try {
  const line = parseCommandLine(["bench", ...flags], packageJson.version);
  if (line.kind === "done") throw new Error(`these flags measure nothing: ${flags.join(" ")}`);
  const { settings } = resolveSettings("bench", { flags: line.flags, environment: process.env });
  if (settings.against === undefined) throw new Error("--against names the other engine");
  const comparison = await compareEngines(
    settings,
    settings.against,
    JSON.parse(work) as AgainstWork,
    openLog(settings),
  );
  process.stdout.write(`${JSON.stringify(comparison)}\n`);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
