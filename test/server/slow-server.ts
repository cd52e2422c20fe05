/**
 * A server of its own process whose engine is silent for longer than its connections may idle. Inside `bun test` no
 * connection ever idles out, so only a process outside can show that requests are exempt. Prints its address.
 */

import { startServer } from "../../src/server/listen.ts";
import { harness, says } from "./harness.ts";

const { models, settings } = harness({
  script: () => says("late", { prefillDelayMs: 5_500 }),
  settings: { keepAliveIntervalMs: 60_000 },
});
const server = startServer({ hostname: "127.0.0.1", port: 0, models, settings, idleTimeoutSeconds: 1 });
console.log(server.url);
