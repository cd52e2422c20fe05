/**
 * Settings of several nodes, checked together: which node this is, and whether the numbers agree. The names and
 * what they mean are those of mistral.rs; the modes themselves do not exist yet.
 */

import { MistralError } from "../errors.ts";
import type { Settings } from "./settings.ts";
import { didYouMean } from "./suggest.ts";

/** What this process is among several. */
export type NodePlan =
  | { readonly role: "alone" }
  | ({ readonly role: "head"; readonly port: number; readonly workers: number } & WorldSizes)
  | ({ readonly role: "worker"; readonly server: string; readonly id: number } & WorldSizes);

export interface WorldSizes {
  /** Ranks of all nodes. */
  readonly globalSize: number;
  /** Ranks of this node. */
  readonly localSize: number;
}

const GLOBAL = "MISTRALRS_MN_GLOBAL_WORLD_SIZE";
const LOCAL = "MISTRALRS_MN_LOCAL_WORLD_SIZE";
const WORKERS = "MISTRALRS_MN_HEAD_NUM_WORKERS";
const PORT = "MISTRALRS_MN_HEAD_PORT";
const SERVER = "MISTRALRS_MN_WORKER_SERVER_ADDR";
const ID = "MISTRALRS_MN_WORKER_ID";

/** Throws MistralError("invalid_configuration") when the variables contradict each other. */
export function refuseNodeConflicts(settings: Settings): void {
  planNodes(settings);
}

/**
 * What the variables make of this process; `localDevices` counts where no variable says how many ranks it has.
 * Throws MistralError("invalid_configuration") that names the variables at fault with their values.
 */
export function planNodes(settings: Settings, localDevices = 1): NodePlan {
  if (settings.noNccl) return { role: "alone" };
  const { globalWorldSize: globalSize, headWorkers, headPort, workerServerAddress, workerId } = settings;
  requireTogether([WORKERS, headWorkers], [PORT, headPort]);
  requireTogether([SERVER, workerServerAddress], [ID, workerId]);
  const isHead = headWorkers !== undefined;
  const isWorker = workerServerAddress !== undefined;
  if (isHead && isWorker) {
    throw refused(
      `${WORKERS} makes this node the head and ${SERVER} makes it a worker; unset one of them`,
      WORKERS,
    );
  }
  if (globalSize === undefined) {
    if (!isHead && !isWorker) return { role: "alone" };
    throw refused(
      `${isHead ? WORKERS : SERVER} is set, but ${GLOBAL} is not: it says how many ranks there are`,
      GLOBAL,
    );
  }
  if (settings.ringConfig !== undefined) {
    throw refused(
      `RING_CONFIG and ${GLOBAL} are two ways to use several nodes; unset one, or set MISTRALRS_NO_NCCL=1 for the ring`,
      "RING_CONFIG",
    );
  }
  const localSize = settings.localWorldSize ?? localDevices;
  const sizes = { globalSize, localSize };
  requireDivisible(sizes);
  if (!isHead && !isWorker) {
    throw refused(
      `${GLOBAL} is ${globalSize}, but this node is neither head (${WORKERS} and ${PORT}) nor worker (${SERVER} and ${ID})`,
      GLOBAL,
    );
  }
  const nodes = globalSize / localSize;
  if (isHead) {
    if (headWorkers + 1 !== nodes) {
      throw refused(
        `${GLOBAL} ${globalSize} over ${LOCAL} ${localSize} makes ${nodes} nodes, that is ${nodes - 1} workers; ${WORKERS} is ${headWorkers}`,
        WORKERS,
      );
    }
    return { role: "head", port: headPort!, workers: headWorkers, ...sizes };
  }
  if (workerId! >= nodes - 1) {
    throw refused(
      `${ID} is ${workerId}; with ${GLOBAL} ${globalSize} over ${LOCAL} ${localSize} there are ${nodes - 1} workers, numbered from 0`,
      ID,
    );
  }
  requirePort(workerServerAddress!);
  return { role: "worker", server: workerServerAddress!, id: workerId!, ...sizes };
}

function requireTogether(one: readonly [string, unknown], other: readonly [string, unknown]): void {
  for (const [[name, value], [partner, partnerValue]] of [
    [one, other],
    [other, one],
  ] as const) {
    if (value === undefined || partnerValue !== undefined) continue;
    throw refused(`${name} is ${value}, but ${partner} is not set; they belong together`, partner);
  }
}

function requireDivisible({ globalSize, localSize }: WorldSizes): void {
  if (globalSize >= localSize && globalSize % localSize === 0) return;
  throw refused(
    `${GLOBAL} is ${globalSize} and ${LOCAL} is ${localSize}; the first must be at least the second and a multiple of it`,
    GLOBAL,
  );
}

function requirePort(address: string): void {
  const port = Number(address.slice(address.lastIndexOf(":") + 1));
  const octets = /^(\d+)\.(\d+)\.(\d+)\.(\d+):/.exec(address)?.slice(1) ?? [];
  if (port >= 1 && port <= 65_535 && octets.every((octet) => Number(octet) <= 255)) return;
  throw refused(`${SERVER} is ${address}, which is no address and port`, SERVER);
}

/** One rank of a ring of processes over TCP. */
export interface RingConfig {
  /** Where rank 0 hands out requests. */
  readonly masterIp: string;
  readonly masterPort: number;
  /** Where this rank listens for its left neighbour. */
  readonly port: number;
  readonly rightIp: string;
  readonly rightPort: number;
  readonly rank: number;
  readonly worldSize: number;
}

const RING_KEYS = [
  "master_ip",
  "master_port",
  "port",
  "right_ip",
  "right_port",
  "rank",
  "world_size",
] as const;
const ANY_ADDRESS = "0.0.0.0";

/** Checks the text of the file that RING_CONFIG names. Throws MistralError("invalid_configuration"). */
export function parseRingConfig(text: string, path: string): RingConfig {
  const fail = (problem: string): never => {
    throw refused(`RING_CONFIG file ${path}: ${problem}`, "RING_CONFIG");
  };
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    return fail(`not JSON: ${(error as Error).message}`);
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
    return fail("not a JSON object");
  const values = parsed as Readonly<Record<string, unknown>>;
  const unknown = Object.keys(values).find((key) => !RING_KEYS.some((known) => known === key));
  if (unknown !== undefined) return fail(`${unknown} is not a key of it${didYouMean(unknown, RING_KEYS)}`);
  const whole = (key: string, min: number, max: number): number => {
    const value = values[key];
    if (value === undefined) return fail(`${key} is missing`);
    const fits = typeof value === "number" && Number.isInteger(value) && value >= min && value <= max;
    return fits
      ? value
      : fail(`${key} is ${JSON.stringify(value)}; allowed: a whole number from ${min} to ${max}`);
  };
  const address = (key: string): string | undefined => {
    const value = values[key];
    if (value === undefined || typeof value === "string") return value;
    return fail(`${key} is ${JSON.stringify(value)}; allowed: a text`);
  };
  const worldSize = whole("world_size", 2, 65_536);
  if (!Number.isInteger(Math.log2(worldSize))) fail(`world_size is ${worldSize}, not a power of two`);
  const rank = whole("rank", 0, worldSize - 1);
  const masterIp = address("master_ip");
  if (masterIp === undefined && rank > 0)
    fail(`master_ip is missing; only rank 0 may leave it out, this is rank ${rank}`);
  return {
    masterIp: masterIp ?? ANY_ADDRESS,
    masterPort: whole("master_port", 1, 65_535),
    port: whole("port", 1, 65_535),
    rightIp: address("right_ip") ?? ANY_ADDRESS,
    rightPort: whole("right_port", 1, 65_535),
    rank,
    worldSize,
  };
}

function refused(message: string, parameter: string): MistralError {
  return new MistralError("invalid_configuration", message, { parameter });
}
