/**
 * Collects garbage when a process rests. Under load the collector puts off what a busy moment left behind, and a process
 * that then rests would keep memory it has no use for until the next busy moment.
 */

const LOOK_EVERY_MS = 1_000;

/**
 * Looks every second. `work` gives a number that changes whenever something was done, or null while something is being
 * done; collects once when it has stayed the same for a look.
 */
export function collectWhenIdle(
  work: () => number | null,
  collect: () => void = () => Bun.gc(true),
  everyMs = LOOK_EVERY_MS,
): Timer {
  let seen = work();
  let collected = seen;
  const timer = setInterval(() => {
    const now = work();
    if (now !== null && now === seen && now !== collected) {
      collected = now;
      collect();
    }
    seen = now;
  }, everyMs);
  timer.unref();
  return timer;
}
