/** The threads of a process as the kernel shows them to everyone (Linux). */

import { readdirSync, readFileSync } from "node:fs";
import { parseProcessorList } from "../../src/config/threads.ts";

export interface ThreadStatus {
  readonly id: number;
  readonly name: string;
  /** `R` runs or could, `S` sleeps. */
  readonly state: string;
  /** Processors it may run on. */
  readonly processors: readonly number[];
}

export function threadsOf(process: number): ThreadStatus[] {
  return readdirSync(`/proc/${process}/task`).flatMap((id) => {
    const status = readStatus(process, id);
    return status === undefined ? [] : [status];
  });
}

/** The threads of a device's pool, the owner not among them, in order. */
export function poolThreadsOf(process: number): ThreadStatus[] {
  const index = ({ name }: ThreadStatus): number => Number(name.slice(name.indexOf("-") + 1));
  return threadsOf(process)
    .filter(({ name }) => /^mistral-\d+$/.test(name))
    .sort((a, b) => index(a) - index(b));
}

/** The thread that a process began with. */
export function mainThreadOf(process: number): ThreadStatus {
  const status = readStatus(process, String(process));
  if (status === undefined) throw new Error(`process ${process} is gone`);
  return status;
}

function readStatus(process: number, id: string): ThreadStatus | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${process}/task/${id}/status`, "utf8");
  } catch {
    return undefined; // it ended while we looked
  }
  const field = (name: string): string => new RegExp(`^${name}:\\s*(.*)$`, "m").exec(text)?.[1] ?? "";
  return {
    id: Number(id),
    name: field("Name"),
    state: field("State").slice(0, 1),
    processors: parseProcessorList(field("Cpus_allowed_list")),
  };
}
