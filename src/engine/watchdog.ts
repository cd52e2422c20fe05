/** Notices that somebody who is busy says nothing. Allows for its own process having been held up. */

export interface WatchdogSubject {
  isBusy(): boolean;
  /** How long it may say nothing now. */
  allowedMs(): number;
  /** Called when nothing was heard for longer than is allowed while busy. */
  onSilence(silentMs: number): void;
}

export class Watchdog {
  readonly #subject: WatchdogSubject;
  readonly #periodMs: number;
  readonly #timer: Timer;
  #heardAtMs = performance.now();
  #lookedAtMs = performance.now();

  constructor(subject: WatchdogSubject) {
    this.#subject = subject;
    this.#periodMs = Math.max(1, Math.min(subject.allowedMs() / 4, 250));
    this.#timer = setInterval(() => this.#look(), this.#periodMs);
    this.#timer.unref();
  }

  heard(): void {
    this.#heardAtMs = performance.now();
  }

  /** Milliseconds since something was heard; 0 when nobody is busy. */
  get silentMs(): number {
    return this.#subject.isBusy() ? performance.now() - this.#heardAtMs : 0;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const nowMs = performance.now();
    // This process stood still itself: signs of life may lie unread, so the clock starts again.
    if (nowMs - this.#lookedAtMs > this.#periodMs * 2 + 100) this.#heardAtMs = nowMs;
    this.#lookedAtMs = nowMs;
    const silentMs = nowMs - this.#heardAtMs;
    if (silentMs > this.#subject.allowedMs() && this.#subject.isBusy()) {
      this.#heardAtMs = nowMs;
      this.#subject.onSilence(silentMs);
    }
  }
}
