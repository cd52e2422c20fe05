import { describe, expect, test } from "bun:test";
import { parseRingConfig, planNodes } from "../../src/config/nodes.ts";
import { type Environment, resolveSettings } from "../../src/config/resolve.ts";
import { expectMistralError } from "../support/expect-error.ts";

/** Variables without their common beginning. */
function variables(values: Readonly<Record<string, string>>): Environment {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [`MISTRALRS_MN_${name}`, value]));
}

function plan(values: Readonly<Record<string, string>>, more: Environment = {}) {
  const { settings } = resolveSettings("serve", { environment: { ...variables(values), ...more } });
  return planNodes(settings);
}

const HEAD = { GLOBAL_WORLD_SIZE: "6", LOCAL_WORLD_SIZE: "2", HEAD_NUM_WORKERS: "2", HEAD_PORT: "5000" };
const WORKER = {
  GLOBAL_WORLD_SIZE: "6",
  LOCAL_WORLD_SIZE: "2",
  WORKER_SERVER_ADDR: "10.0.0.1:5000",
  WORKER_ID: "1",
};

describe("several nodes", () => {
  test("head, worker and none of both", () => {
    expect(plan(HEAD)).toEqual({ role: "head", port: 5000, workers: 2, globalSize: 6, localSize: 2 });
    expect(plan(WORKER)).toEqual({
      role: "worker",
      server: "10.0.0.1:5000",
      id: 1,
      globalSize: 6,
      localSize: 2,
    });
    expect(plan({ ...WORKER, WORKER_SERVER_ADDR: "[fd00::1]:5000" })).toMatchObject({
      server: "[fd00::1]:5000",
    });
    expect(plan({})).toEqual({ role: "alone" });
    expect(plan({ LOCAL_WORLD_SIZE: "4" })).toEqual({ role: "alone" });
  });

  test("MISTRALRS_NO_NCCL=1 switches all of it off", () => {
    const half = { HEAD_NUM_WORKERS: "2" };
    expect(plan(half, { MISTRALRS_NO_NCCL: "1" })).toEqual({ role: "alone" });
  });

  const refusals: [string, Readonly<Record<string, string>>, string[]][] = [
    [
      "head without port",
      { ...HEAD, HEAD_PORT: "" },
      ["MISTRALRS_MN_HEAD_NUM_WORKERS is 2", "MISTRALRS_MN_HEAD_PORT is not set"],
    ],
    [
      "port without workers",
      { ...HEAD, HEAD_NUM_WORKERS: "" },
      ["MISTRALRS_MN_HEAD_PORT is 5000", "MISTRALRS_MN_HEAD_NUM_WORKERS is not set"],
    ],
    [
      "worker without id",
      { ...WORKER, WORKER_ID: "" },
      ["MISTRALRS_MN_WORKER_SERVER_ADDR is 10.0.0.1:5000", "MISTRALRS_MN_WORKER_ID is not set"],
    ],
    [
      "id without head",
      { ...WORKER, WORKER_SERVER_ADDR: "" },
      ["MISTRALRS_MN_WORKER_ID is 1", "MISTRALRS_MN_WORKER_SERVER_ADDR is not set"],
    ],
    ["head and worker", { ...HEAD, ...WORKER }, ["the head", "a worker"]],
    ["no world size", { ...HEAD, GLOBAL_WORLD_SIZE: "" }, ["MISTRALRS_MN_GLOBAL_WORLD_SIZE is not"]],
    ["neither head nor worker", { GLOBAL_WORLD_SIZE: "2" }, ["neither head", "nor worker"]],
    [
      "sizes that do not divide",
      { ...HEAD, GLOBAL_WORLD_SIZE: "5" },
      ["GLOBAL_WORLD_SIZE is 5", "LOCAL_WORLD_SIZE is 2", "a multiple"],
    ],
    [
      "fewer ranks than one node has",
      { ...HEAD, GLOBAL_WORLD_SIZE: "1" },
      ["GLOBAL_WORLD_SIZE is 1", "at least"],
    ],
    [
      "another number of workers",
      { ...HEAD, HEAD_NUM_WORKERS: "3" },
      ["makes 3 nodes, that is 2 workers", "HEAD_NUM_WORKERS is 3"],
    ],
    [
      "an id beyond the workers",
      { ...WORKER, WORKER_ID: "2" },
      ["MISTRALRS_MN_WORKER_ID is 2", "2 workers, numbered from 0"],
    ],
    ["a host name", { ...WORKER, WORKER_SERVER_ADDR: "head:5000" }, ['"head:5000"', "no host name"]],
    ["an address that is none", { ...WORKER, WORKER_SERVER_ADDR: "10.0.0.999:5000" }, ["10.0.0.999:5000"]],
    ["a port that is none", { ...WORKER, WORKER_SERVER_ADDR: "10.0.0.1:99999" }, ["10.0.0.1:99999"]],
    [
      "a size that is no number",
      { ...HEAD, GLOBAL_WORLD_SIZE: "six" },
      ["MISTRALRS_MN_GLOBAL_WORLD_SIZE", '"six"'],
    ],
  ];
  for (const [name, values, parts] of refusals) {
    test(`${name} is refused`, () => {
      expectMistralError(() => plan(values), "invalid_configuration", ...parts);
    });
  }

  test("a ring beside them is refused", () => {
    expectMistralError(
      () => plan(HEAD, { RING_CONFIG: "ring.json" }),
      "invalid_configuration",
      "RING_CONFIG",
      "NO_NCCL",
    );
  });
});

describe("a ring", () => {
  const RING = {
    master_ip: "10.0.0.1",
    master_port: 9000,
    port: 9001,
    right_ip: "10.0.0.2",
    right_port: 9001,
    rank: 1,
    world_size: 2,
  };
  const parse = (changes: Readonly<Record<string, unknown>>) =>
    parseRingConfig(JSON.stringify({ ...RING, ...changes }), "ring.json");

  test("is read, with the addresses that may be left out", () => {
    expect(parse({})).toEqual({
      masterIp: "10.0.0.1",
      masterPort: 9000,
      port: 9001,
      rightIp: "10.0.0.2",
      rightPort: 9001,
      rank: 1,
      worldSize: 2,
    });
    expect(parse({ master_ip: undefined, right_ip: undefined, rank: 0 })).toMatchObject({
      masterIp: "0.0.0.0",
      rightIp: "0.0.0.0",
    });
  });

  const refusals: [string, Readonly<Record<string, unknown>>, string][] = [
    ["a size that is no power of two", { world_size: 3 }, "world_size is 3, not a power of two"],
    ["a ring of one", { world_size: 1 }, "world_size is 1"],
    ["a rank beyond the size", { rank: 2 }, "rank is 2; allowed: a whole number from 0 to 1"],
    ["a rank without master", { master_ip: undefined }, "master_ip is missing"],
    ["no port", { port: undefined }, "port is missing"],
    ["a port that is none", { right_port: 0 }, "right_port is 0"],
    ["an address that is no text", { right_ip: 7 }, "right_ip is 7"],
    ["a key that is none", { righ_ip: "x" }, "righ_ip is not a key of it (did you mean right_ip?)"],
  ];
  for (const [name, changes, message] of refusals) {
    test(`with ${name} is refused`, () => {
      expectMistralError(
        () => parse(changes),
        "invalid_configuration",
        "RING_CONFIG file ring.json",
        message,
      );
    });
  }

  test("that is not JSON is refused", () => {
    expectMistralError(() => parseRingConfig("{", "r.json"), "invalid_configuration", "r.json: not JSON");
    expectMistralError(() => parseRingConfig("[]", "r.json"), "invalid_configuration", "not a JSON object");
  });
});
