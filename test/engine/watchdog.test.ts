import { expect, test } from "bun:test";
import { Watchdog } from "../../src/engine/watchdog.ts";

function watch(timeoutMs: number): { watchdog: Watchdog; subject: { busy: boolean; silences: number } } {
  const subject = { busy: true, silences: 0 };
  const watchdog = new Watchdog({
    allowedMs: () => timeoutMs,
    isBusy: () => subject.busy,
    onSilence: () => {
      subject.silences += 1;
    },
  });
  return { watchdog, subject };
}

test("silence is noticed while busy only, and not when something is heard", async () => {
  const idle = watch(250);
  idle.subject.busy = false;
  const talking = watch(250);
  const silent = watch(250);
  for (let turn = 0; turn < 60; turn++) {
    await Bun.sleep(10);
    talking.watchdog.heard();
  }
  for (const { watchdog } of [idle, talking, silent]) watchdog.stop();
  expect(idle.subject.silences).toBe(0);
  expect(talking.subject.silences).toBe(0);
  expect(silent.subject.silences).toBeGreaterThanOrEqual(1);
});

test("a process that stood still itself does not blame the other", async () => {
  const { watchdog, subject } = watch(60);
  await Bun.sleep(20);
  const untilMs = performance.now() + 300;
  while (performance.now() < untilMs);
  await Bun.sleep(20);
  watchdog.stop();
  expect(subject.silences).toBe(0);
});
