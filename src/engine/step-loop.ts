/**
 * Drives an `EngineCore` while it has work: one step per turn of the event loop, so that commands arrive
 * between steps and are applied before the next one.
 */

import type { EngineCore } from "./engine-core.ts";
import type { StepReport } from "./step-report.ts";

export class StepLoop {
  readonly #core: EngineCore;
  readonly #onReport: (report: StepReport) => void;
  #scheduled = false;

  constructor(core: EngineCore, onReport: (report: StepReport) => void) {
    this.#core = core;
    this.#onReport = onReport;
  }

  /** To be called after each command: starts the loop when it rests. */
  wake(): void {
    if (this.#scheduled || !this.#core.hasWork) return;
    this.#scheduled = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    this.#scheduled = false;
    this.#onReport(this.#core.step());
    this.wake();
  };
}
