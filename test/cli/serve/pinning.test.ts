/** CANDLE_CPU_MASK seen from outside: on which processors the kernel lets the threads of a serving engine run. */

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { mainThreadOf, poolThreadsOf, type ThreadStatus } from "../../support/thread-status.ts";
import { writeTinyModel } from "../../support/tiny-model.ts";
import { childrenOf, LOOPBACK, post, runCommand, startServing, stopServersAfterEach } from "../processes.ts";

const model = join(temporaryFolder("pinning"), "tiny");
writeTinyModel(model);
stopServersAfterEach();

const SERVE = ["serve", "-m", model, ...LOOPBACK] as const;
const SEEN_WITHIN_MS = 30_000;

describe.if(process.platform === "linux")("the engine's threads", () => {
  const free = process.platform === "linux" ? mainThreadOf(process.pid).processors : [];
  const pair = free.slice(0, 2);
  const processorsOf = (threads: readonly ThreadStatus[]) => threads.map(({ processors }) => processors);

  async function serve(mask: string | undefined, threads: readonly string[] = []) {
    const environment = mask === undefined ? {} : { CANDLE_CPU_MASK: mask };
    const server = await startServing([...SERVE, ...threads], { environment });
    const [engine] = childrenOf(server.child.pid);
    return { ...server, engine: engine! };
  }

  const complete = (url: string) =>
    post(url, "/v1/completions", { prompt: "a", max_tokens: 100, ignore_eos: true });

  test("are as many as the mask names, each on its processor; the server's own are free", async () => {
    const { engine, child, url, log } = await serve(pair.join());
    expect(processorsOf(poolThreadsOf(engine))).toEqual(pair.slice(1).map((processor) => [processor]));
    expect(mainThreadOf(engine).processors).toEqual(pair);
    expect(mainThreadOf(child.pid).processors).toEqual(free);
    expect(log()).not.toContain("not in effect");

    // The thread that runs programs has one processor while it does.
    let computing: readonly number[] = [];
    const end = Date.now() + SEEN_WITHIN_MS;
    while (computing.length !== 1 && Date.now() < end) {
      let isDone = false;
      const answer = complete(url).finally(() => {
        isDone = true;
      });
      while (!isDone && computing.length !== 1) {
        computing = mainThreadOf(engine).processors;
        await Bun.sleep(0);
      }
      expect((await answer).status).toBe(200);
    }
    expect(computing).toEqual(pair.slice(0, 1));
  }, 60_000);

  test("share one processor when the mask names one and more threads are asked for", async () => {
    const only = free.at(-1)!;
    const { engine, url } = await serve(String(only), ["--threads", "3"]);
    expect(processorsOf(poolThreadsOf(engine))).toEqual([[only], [only]]);
    expect(mainThreadOf(engine).processors).toEqual([only]);
    expect((await complete(url)).status).toBe(200);
  }, 60_000);

  test("run anywhere without a mask", async () => {
    const { engine } = await serve(undefined, ["--threads", "2"]);
    expect(processorsOf(poolThreadsOf(engine))).toEqual([free]);
    expect(mainThreadOf(engine).processors).toEqual(free);
  }, 60_000);

  test("cannot be on a processor that is not there: the start ends with its number", async () => {
    const { status, stderr } = await runCommand(SERVE, { environment: { CANDLE_CPU_MASK: "0,8191" } });
    expect(status).not.toBe(0);
    expect(stderr).toContain("processor 8191, which does not exist; this process may use ");
    expect(stderr).toContain("CANDLE_CPU_MASK");
  }, 60_000);
});
