/** A process that never rests, as another program of the machine's would be: it is bound to no processor. */

export class BusyProcess {
  readonly #child: Bun.Subprocess<"ignore", "ignore", "ignore">;

  /** It ends by itself after `seconds`, should nobody end it. */
  constructor(seconds: number) {
    const end = Date.now() + seconds * 1000;
    this.#child = Bun.spawn([process.execPath, "-e", `while (Date.now() < ${end});`], {
      stdio: ["ignore", "ignore", "ignore"],
    });
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** When it has ended, by itself or not. */
  get ended(): Promise<number> {
    return this.#child.exited;
  }

  async end(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.ended;
  }
}
