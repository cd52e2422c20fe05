/** Where both sides take their turns: prompts, then tokens behind each depth by each number of sequences. */

import type { Settings } from "../../../config/settings.ts";
import type { Log } from "../../log.ts";
import { formatDuration } from "../../units.ts";
import type { Cell } from "./comparison.ts";
import type { OwnSide } from "./own-side.ts";
import type { Peer, Way } from "./peer.ts";
import type { PeerProcess } from "./peer-process.ts";
import { type Contest, contest, type Turn } from "./turns.ts";

/** A turn of generating is as many steps as the slower side does in about this time, at most as many as asked for. */
const TURN_SECONDS = 2;
const TRIAL_STEPS = 4;

/** What is compared. */
export interface AgainstWork {
  /** Tokens of each prompt. */
  readonly prompts: readonly number[];
  /** Tokens of context before what is generated, and sequences that generate. */
  readonly cells: readonly { readonly depth: number; readonly sequences: number }[];
  /** Whether whole processes are compared too, with the longest of the prompts. */
  readonly wholeProcesses: boolean;
}

export interface Measured {
  readonly cell: Cell;
  readonly result: Contest;
}

export interface ArenaOptions {
  readonly own: OwnSide;
  readonly other: Peer;
  /** Of the other side. */
  readonly peer: PeerProcess;
  readonly work: AgainstWork;
  readonly settings: Pick<Settings, "repetitions" | "generatedLength">;
  readonly log: Log;
}

export class Arena {
  readonly #own: OwnSide;
  readonly #other: Peer;
  readonly #peer: PeerProcess;
  readonly #work: AgainstWork;
  readonly #settings: ArenaOptions["settings"];
  readonly #log: Log;

  constructor({ own, other, peer, work, settings, log }: ArenaOptions) {
    this.#own = own;
    this.#other = other;
    this.#peer = peer;
    this.#work = work;
    this.#settings = settings;
    this.#log = log;
  }

  async prefill(): Promise<Measured[]> {
    const measured: Measured[] = [];
    for (const tokens of this.#work.prompts) {
      // A prompt that does not count: pages come into being, threads start.
      this.#own.prefill(tokens);
      for (const way of this.#other.ways) await this.#peerTurn(way, () => this.#peer.prefill(tokens));
      const result = await contest(
        {
          own: () => this.#own.prefill(tokens),
          peer: (way) => this.#peerTurn(way, () => this.#peer.prefill(tokens)),
          ways: this.#other.ways,
        },
        this.#settings.repetitions,
      );
      measured.push(this.#tell({ phase: "prefill", tokens, depth: 0, sequences: 1 }, result));
    }
    return measured;
  }

  /** Shallow depths first: what is computed for one is the beginning of the next. */
  async decode(): Promise<Measured[]> {
    const measured: Measured[] = [];
    for (const { depth, sequences } of this.#work.cells.toSorted((a, b) => a.depth - b.depth)) {
      const peerTurn = (steps: number, way: Way): Promise<Turn> =>
        this.#peerTurn(way, () => this.#peer.decode(steps, depth, sequences));
      const trials = [this.#own.decode(TRIAL_STEPS, depth, sequences)];
      for (const way of this.#other.ways) trials.push((await peerTurn(TRIAL_STEPS, way)).seconds);
      const affordable = Math.floor((TURN_SECONDS * TRIAL_STEPS) / Math.max(...trials));
      const steps = Math.min(this.#settings.generatedLength, Math.max(TRIAL_STEPS, affordable));
      const result = await contest(
        {
          own: () => this.#own.decode(steps, depth, sequences),
          peer: (way) => peerTurn(steps, way),
          ways: this.#other.ways,
        },
        this.#settings.repetitions,
      );
      measured.push(this.#tell({ phase: "decode", tokens: steps, depth, sequences }, result));
    }
    return measured;
  }

  async #peerTurn(way: Way, turn: () => ReturnType<PeerProcess["prefill"]>): Promise<Turn> {
    await this.#peer.use(way);
    const { seconds, processor_seconds } = await turn();
    return { seconds, processorSeconds: processor_seconds };
  }

  #tell(cell: Cell, result: Contest): Measured {
    const { phase, tokens, depth, sequences } = cell;
    const shown = (times: readonly number[]): string => times.map((time) => formatDuration(time)).join(", ");
    this.#log.write(
      "info",
      `${phase} of ${tokens} tokens at depth ${depth}, sequences: ${sequences}; ours ${shown(result.own)}; ${this.#other.name} ${shown(result.peer)}`,
    );
    return { cell, result };
  }
}
