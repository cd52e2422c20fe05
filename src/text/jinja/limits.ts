/** How much a template may take of the process that renders it: it comes with a model, its input with requests. */

import { MistralError } from "../../errors.ts";

export interface RenderLimits {
  readonly timeMs: number;
  /** Of the result, and of every text on the way to it. */
  readonly charactersMax: number;
  /** Of a list. */
  readonly itemsMax: number;
}

/** Text of the longest body that is accepted fits. */
export const RENDER_LIMITS: RenderLimits = {
  timeMs: 5_000,
  charactersMax: 64 * 1024 * 1024,
  itemsMax: 4 * 1024 * 1024,
};

/** Units of work, each about an evaluation or an item of a list, between looks at the clock. */
const WORK_PER_LOOK = 256;
const CHARACTERS_PER_WORK = 64;

/** What one rendering may still take. */
export class RenderBudget {
  readonly #limits: RenderLimits;
  readonly #endMs: number;
  #untilLook = WORK_PER_LOOK;

  constructor(limits: RenderLimits) {
    this.#limits = limits;
    this.#endMs = performance.now() + limits.timeMs;
  }

  /** Throws `invalid_request` when the time is over. */
  spend(work: number): void {
    this.#untilLook -= work;
    if (this.#untilLook > 0) return;
    this.#untilLook = WORK_PER_LOOK;
    if (performance.now() >= this.#endMs)
      throw exceeded(`ran for longer than ${this.#limits.timeMs / 1000} s`);
  }

  /** A text was made or is about to be. Throws `invalid_request` when it is too long. */
  requireCharacters(count: number): void {
    const { charactersMax } = this.#limits;
    if (count > charactersMax) throw exceeded(`makes a text of more than ${charactersMax} characters`);
    this.spend(1 + count / CHARACTERS_PER_WORK);
  }

  /** The same for a list. */
  requireItems(count: number): void {
    const { itemsMax } = this.#limits;
    if (count > itemsMax) throw exceeded(`makes a list of more than ${itemsMax} items`);
    this.spend(1 + count);
  }
}

function exceeded(what: string): MistralError {
  return new MistralError("invalid_request", `the chat template ${what} with these messages`, {
    parameter: "messages",
  });
}
