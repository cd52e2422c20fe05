/**
 * Two sides that take turns at the same work, so that whatever the machine does meanwhile happens to both. The other
 * side may have several ways to do it, with and without flash attention, of which the better one counts.
 */

import type { Way } from "./peer.ts";
import { busySeconds, ownSeconds } from "./processor-time.ts";

/** What a side did in a turn. */
export interface Turn {
  readonly seconds: number;
  /** Of all threads of the side, from before the turn to after it. */
  readonly processorSeconds: number;
}

/** A piece of work, done by either side. */
export interface Work {
  /** Seconds. */
  readonly own: () => number;
  readonly peer: (way: Way) => Promise<Turn>;
  /** The other side's ways, at least one. */
  readonly ways: readonly Way[];
}

export interface Contest {
  /** Seconds of each round that counts. */
  readonly own: readonly number[];
  readonly peer: readonly number[];
  /** Which of the other side's ways these are. */
  readonly way: Way;
  /** Rounds in which other programs used the processors too, among all. */
  readonly disturbed: number;
  readonly rounds: number;
}

/** A way that is so much slower in its first undisturbed rounds is not given another turn. */
const HOPELESS = 1.25;
/** Seconds per second that others may use: the system's own work. */
const OTHERS_MAX = 0.1;
/** Shorter turns than this cannot be judged by a clock of hundredths. */
const JUDGED_SECONDS_MIN = 0.25;
/** Disturbed rounds are repeated, but not for ever. */
const ROUNDS_FACTOR = 2;

interface Round {
  readonly own: number;
  readonly peer: ReadonlyMap<Way, number>;
  readonly isDisturbed: boolean;
}

/**
 * Rounds of a turn for each side, the first of either by turns, until `repetitions` were undisturbed or twice as many
 * are over. The undisturbed ones count; all of them when there is none.
 */
export async function contest(work: Work, repetitions: number): Promise<Contest> {
  const rounds: Round[] = [];
  let { ways } = work;
  const calm = (): Round[] => rounds.filter(({ isDisturbed }) => !isDisturbed);
  while (calm().length < repetitions && rounds.length < ROUNDS_FACTOR * repetitions) {
    rounds.push(await playRound(work, ways, rounds.length % 2 === 0));
    if (calm().length > 0) ways = worthwhile(calm(), ways);
  }
  const counted = calm().length > 0 ? calm() : rounds;
  const timesOf = (way: Way): number[] => counted.flatMap(({ peer }) => peer.get(way) ?? []);
  const [way] = ways.toSorted((a, b) => median(timesOf(a)) - median(timesOf(b)));
  return {
    own: counted.map(({ own }) => own),
    peer: timesOf(way),
    way,
    disturbed: rounds.length - calm().length,
    rounds: rounds.length,
  };
}

async function playRound(work: Work, ways: readonly Way[], isOwnFirst: boolean): Promise<Round> {
  let own = Number.NaN;
  let isDisturbed = false;
  const peer = new Map<Way, number>();
  const take = async (turn: () => Promise<Turn>): Promise<number> => {
    const judged = await watched(turn);
    isDisturbed ||= judged.isDisturbed;
    return judged.seconds;
  };
  const takeOwn = async (): Promise<void> => {
    own = await take(async () => {
      const before = ownSeconds();
      const seconds = work.own();
      return { seconds, processorSeconds: ownSeconds() - before };
    });
  };
  if (isOwnFirst) await takeOwn();
  for (const way of ways) peer.set(way, await take(() => work.peer(way)));
  if (!isOwnFirst) await takeOwn();
  return { own, peer, isDisturbed };
}

/** The ways of the other side without one that is far behind. */
function worthwhile(rounds: readonly Round[], ways: readonly Way[]): readonly Way[] {
  const bestOf = (way: Way): number => Math.min(...rounds.flatMap(({ peer }) => peer.get(way) ?? []));
  const best = Math.min(...ways.map(bestOf));
  return ways.filter((way) => bestOf(way) <= HOPELESS * best);
}

/** A turn, and whether others were at work meanwhile. */
async function watched(turn: () => Promise<Turn>): Promise<{ seconds: number; isDisturbed: boolean }> {
  const before = busySeconds();
  const startedMs = performance.now();
  const { seconds, processorSeconds } = await turn();
  const elapsed = (performance.now() - startedMs) / 1000;
  const after = busySeconds();
  if (before === undefined || after === undefined || elapsed < JUDGED_SECONDS_MIN) {
    return { seconds, isDisturbed: false };
  }
  return { seconds, isDisturbed: (after - before - processorSeconds) / elapsed > OTHERS_MAX };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2;
}
