/** Settings of several devices and several machines; `../nodes.ts` checks them together. */

import type { SettingDeclaration } from "../types.ts";
import { CHATTING, COUNT_MAX, NO_NODES } from "./common.ts";

export const NODE_SETTINGS = {
  noNccl: {
    environment: ["MISTRALRS_NO_NCCL"],
    type: { kind: "switch", on: ["1"] },
    default: false,
    description: "No tensor parallelism over NCCL; the other variables of several nodes are ignored",
    group: "Several nodes",
    commands: CHATTING,
    notBuilt: NO_NODES,
  },
  globalWorldSize: {
    environment: ["MISTRALRS_MN_GLOBAL_WORLD_SIZE"],
    type: { kind: "integer", min: 1, max: 65_536 },
    unsetText: "one node",
    description: "Ranks of all nodes together; switches several nodes on",
    group: "Several nodes",
    commands: CHATTING,
    notBuilt: NO_NODES,
  },
  localWorldSize: {
    environment: ["MISTRALRS_MN_LOCAL_WORLD_SIZE"],
    type: { kind: "integer", min: 1, max: 65_536 },
    unsetText: "the devices of this node",
    description: "Ranks of this node",
    group: "Several nodes",
    commands: CHATTING,
    notBuilt: NO_NODES,
  },
  headWorkers: {
    environment: ["MISTRALRS_MN_HEAD_NUM_WORKERS"],
    type: { kind: "integer", min: 1, max: 65_536 },
    unsetText: "this node is not the head",
    description: "Worker nodes that the head waits for; makes this node the head",
    group: "Several nodes",
    commands: CHATTING,
    notBuilt: NO_NODES,
  },
  headPort: {
    environment: ["MISTRALRS_MN_HEAD_PORT"],
    type: { kind: "integer", min: 1, max: 65_535 },
    unsetText: "this node is not the head",
    description: "Port on which the head listens for workers",
    group: "Several nodes",
    commands: CHATTING,
    notBuilt: NO_NODES,
  },
  workerServerAddress: {
    environment: ["MISTRALRS_MN_WORKER_SERVER_ADDR"],
    type: {
      kind: "text",
      pattern: /^((\d{1,3}\.){3}\d{1,3}|\[[0-9a-fA-F:.]+\]):\d{1,5}$/,
      words: "an address and a port such as 10.0.0.1:5000 or [fd00::1]:5000, no host name",
    },
    unsetText: "this node is no worker",
    description: "Where this worker node reaches the head; makes this node a worker",
    group: "Several nodes",
    commands: CHATTING,
    notBuilt: NO_NODES,
  },
  workerId: {
    environment: ["MISTRALRS_MN_WORKER_ID"],
    type: { kind: "integer", min: 0, max: COUNT_MAX },
    unsetText: "this node is no worker",
    description: "Number of this worker node, from 0",
    group: "Several nodes",
    commands: CHATTING,
    notBuilt: NO_NODES,
  },
  ringConfig: {
    environment: ["RING_CONFIG"],
    type: { kind: "path" },
    unsetText: "no ring",
    description: "JSON file that makes this process a rank of a ring of processes over TCP",
    group: "Several nodes",
    commands: CHATTING,
    notBuilt: NO_NODES,
  },
} as const satisfies Record<string, SettingDeclaration>;
