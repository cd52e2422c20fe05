/**
 * Shows how far a transfer is: a bar on a terminal, elsewhere a plain line for every tenth of it, but at most one
 * a second and at least one in ten. What, how much, how fast, how long.
 */

import type { SingleBar } from "cli-progress";
import { formatByteRate, formatBytes, formatDuration } from "./units.ts";

const PLAIN_INTERVAL_MIN_MS = 1_000;
const PLAIN_INTERVAL_MAX_MS = 10_000;
const PLAIN_STEP = 0.1;
/** Less than this at the first word of a transfer is its first piece, not what an earlier run left. */
const RESUMED_BYTES_MIN = 1_000_000;

export interface Transfer {
  readonly action: "fetch" | "unpack" | "load";
  /** What is being transferred, such as a file's name. */
  readonly name: string;
  readonly bytesDone: number;
  /** Undefined where the sender does not say. */
  readonly bytesTotal: number | undefined;
}

const WORDS = {
  fetch: { present: "fetching", past: "fetched" },
  load: { present: "loading", past: "loaded" },
  unpack: { present: "unpacking", past: "unpacked" },
} as const;

export interface ProgressOutput {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

interface Active {
  readonly action: Transfer["action"];
  readonly name: string;
  readonly startedMs: number;
  /** Bytes that were there before: a resumed transfer's speed does not count them. */
  readonly bytesAtStart: number;
  lastLineMs: number;
  lastFraction: number;
}

export class TransferProgress {
  readonly #output: ProgressOutput;
  readonly #now: () => number;
  #active: Active | undefined;
  /** What ended last; senders may say more than once that all is there. */
  #ended = "";
  #bar: SingleBar | undefined;

  constructor(output: ProgressOutput = process.stderr, now: () => number = () => performance.now()) {
    this.#output = output;
    this.#now = now;
  }

  /** Notes the state of a transfer; a new name or action begins a new one, all bytes done ends it. */
  update(transfer: Transfer): void {
    if (this.#ended === `${transfer.action} ${transfer.name}`) return;
    const current = this.#active;
    const active =
      current?.name === transfer.name && current.action === transfer.action ? current : this.#begin(transfer);
    const { bytesDone, bytesTotal } = transfer;
    if (bytesTotal !== undefined && bytesDone >= bytesTotal) {
      this.#end(active, bytesDone);
      return;
    }
    if (this.#output.isTTY === true) this.#drawBar(active, transfer);
    else this.#writeLine(active, transfer);
  }

  #begin(transfer: Transfer): Active {
    this.#ended = "";
    this.#bar?.stop();
    this.#bar = undefined;
    const now = this.#now();
    const active: Active = {
      action: transfer.action,
      name: transfer.name,
      startedMs: now,
      bytesAtStart: transfer.bytesDone,
      lastLineMs: now,
      lastFraction: 0,
    };
    this.#active = active;
    if (this.#output.isTTY === true) return active;
    const size = transfer.bytesTotal === undefined ? "" : ` (${formatBytes(transfer.bytesTotal)})`;
    const resumed =
      transfer.bytesDone < RESUMED_BYTES_MIN ? "" : `, going on at ${formatBytes(transfer.bytesDone)}`;
    this.#output.write(`${WORDS[transfer.action].present} ${transfer.name}${size}${resumed}\n`);
    return active;
  }

  #writeLine(active: Active, { bytesDone, bytesTotal }: Transfer): void {
    const now = this.#now();
    const silenceMs = now - active.lastLineMs;
    const fraction = bytesTotal === undefined ? 1 : bytesDone / bytesTotal;
    const due = bytesTotal === undefined || fraction - active.lastFraction >= PLAIN_STEP;
    if (silenceMs < PLAIN_INTERVAL_MIN_MS || (!due && silenceMs < PLAIN_INTERVAL_MAX_MS)) return;
    active.lastLineMs = now;
    active.lastFraction = fraction;
    const share =
      bytesTotal === undefined ? "" : ` of ${formatBytes(bytesTotal)} (${Math.floor(fraction * 100)}%)`;
    this.#output.write(`  ${formatBytes(bytesDone)}${share}${this.#speed(active, bytesDone)}\n`);
  }

  #drawBar(active: Active, transfer: Transfer): void {
    const { name, bytesDone, bytesTotal } = transfer;
    const text = {
      name,
      amount: `${formatBytes(bytesDone)}${bytesTotal === undefined ? "" : ` of ${formatBytes(bytesTotal)}`}`,
      speed: this.#speed(active, bytesDone),
    };
    this.#bar ??= startBar(bytesTotal ?? 0, text);
    this.#bar.update(bytesDone, text);
  }

  #end(active: Active, bytes: number): void {
    this.#bar?.stop();
    this.#bar = undefined;
    this.#active = undefined;
    this.#ended = `${active.action} ${active.name}`;
    const seconds = (this.#now() - active.startedMs) / 1000;
    this.#output.write(
      `${WORDS[active.action].past} ${active.name}: ${formatBytes(bytes)} in ${formatDuration(seconds)}${this.#speed(active, bytes)}\n`,
    );
  }

  #speed(active: Active, bytesDone: number): string {
    const rate = formatByteRate(bytesDone - active.bytesAtStart, (this.#now() - active.startedMs) / 1000);
    return rate === "" ? "" : `, ${rate}`;
  }
}

/** The package is loaded only when a bar is drawn, which most starts do not. */
function startBar(total: number, text: object): SingleBar {
  const { SingleBar } = require("cli-progress") as typeof import("cli-progress");
  const bar = new SingleBar({
    format: "{name} {bar} {percentage}% {amount}{speed}",
    stream: process.stderr,
    barCompleteChar: "█",
    barIncompleteChar: "░",
    barsize: 24,
    hideCursor: true,
    clearOnComplete: true,
  });
  bar.start(total, 0, text);
  return bar;
}
