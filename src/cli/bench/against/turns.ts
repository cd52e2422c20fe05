/**
 * Two sides that take turns at the same work, so that whatever the machine does meanwhile happens to both. The other
 * side has two ways to do it, with and without flash attention, of which the better one counts.
 */

import { busySeconds, ownSeconds } from "./processor-time.ts";

/** What a side did in a turn. */
export interface Turn {
  readonly seconds: number;
  /** Of all threads of the side, from before the turn to after it. */
  readonly processorSeconds: number;
}

/** A piece of work; `share` is the part of it that a trial does, 1 in a turn that counts. */
export interface Work {
  readonly own: () => number;
  readonly peer: (flash: boolean) => Promise<Turn>;
}

export interface Contest {
  /** Seconds of each repetition. */
  readonly own: readonly number[];
  readonly peer: readonly number[];
  /** Which of the other side's ways these are. */
  readonly flash: boolean;
  /** Turns in which other programs used the processors too, among all. */
  readonly disturbed: number;
  readonly turns: number;
}

/** A way that is so much slower in its first turn is not given another. */
const HOPELESS = 1.25;
/** Seconds per second that others may use: the system's own work. */
const OTHERS_MAX = 0.1;
/** Shorter turns than this cannot be judged by a clock of hundredths. */
const JUDGED_SECONDS_MIN = 0.25;

/** `repetitions` turns of each side in alternation, the first of either by turns. */
export async function contest(work: Work, repetitions: number): Promise<Contest> {
  const watch = new Watch();
  const own: number[] = [];
  const ways = new Map<boolean, number[]>([
    [true, []],
    [false, []],
  ]);
  const takeOwn = async (): Promise<void> => {
    own.push(
      await watch.over(async () => {
        const before = ownSeconds();
        const seconds = work.own();
        return { seconds, processorSeconds: ownSeconds() - before };
      }),
    );
  };
  const takePeer = async (): Promise<void> => {
    for (const [flash, times] of ways) times.push(await watch.over(() => work.peer(flash)));
  };
  for (let repetition = 0; repetition < repetitions; repetition++) {
    const order = repetition % 2 === 0 ? [takeOwn, takePeer] : [takePeer, takeOwn];
    for (const take of order) await take();
    dropHopeless(ways);
  }
  const [flash, peer] = [...ways].sort(([, a], [, b]) => median(a) - median(b))[0]!;
  return { own, peer, flash, disturbed: watch.disturbed, turns: watch.turns };
}

function dropHopeless(ways: Map<boolean, number[]>): void {
  const best = Math.min(...[...ways.values()].map((times) => Math.min(...times)));
  for (const [flash, times] of [...ways]) {
    if (Math.min(...times) > HOPELESS * best) ways.delete(flash);
  }
}

/** Tells turns in which others were at work. */
class Watch {
  turns = 0;
  disturbed = 0;

  async over(turn: () => Promise<Turn>): Promise<number> {
    const before = busySeconds();
    const startedMs = performance.now();
    const { seconds, processorSeconds } = await turn();
    const elapsed = (performance.now() - startedMs) / 1000;
    const after = busySeconds();
    this.turns++;
    if (before !== undefined && after !== undefined && elapsed >= JUDGED_SECONDS_MIN) {
      const others = (after - before - processorSeconds) / elapsed;
      if (others > OTHERS_MAX) this.disturbed++;
    }
    return seconds;
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2;
}
