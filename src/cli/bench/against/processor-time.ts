/** How busy the processors of this machine were, to tell when another program was in the way of a measurement. */

import { readFileSync } from "node:fs";

/** Linux counts in hundredths of a second. */
const TICKS_PER_SECOND = 100;

/** Seconds that all processors have worked or been taken away; undefined where the system does not tell. */
export function busySeconds(path = "/proc/stat"): number | undefined {
  let line: string;
  try {
    line = readFileSync(path, "utf8").split("\n", 1)[0] ?? "";
  } catch {
    return undefined;
  }
  const [name, user, nice, system, , , interrupt, softInterrupt, stolen] = line.split(/\s+/);
  if (name !== "cpu") return undefined;
  const ticks = [user, nice, system, interrupt, softInterrupt, stolen].map((text) => Number(text ?? 0));
  return ticks.reduce((sum, value) => sum + value, 0) / TICKS_PER_SECOND;
}

/** Seconds of all threads of this process. */
export function ownSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}
