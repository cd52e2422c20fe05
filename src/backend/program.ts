/** Program: a validated list of ops over buffers; on CUDA the graphs that its steps become, on the CPU their profile. */

import { ptr } from "bun:ffi";
import { readProfile, type StageTime, startProfile } from "./cpu-profile.ts";
import { cudaFunctions } from "./cuda-functions.ts";
import { type CpuLibrary, check, type KernelLibrary } from "./library.ts";

/** What became of the decode steps that were to be captured. */
export interface GraphTotals {
  readonly captured: number;
  /** Sizes of steps that did not fit into the budget. */
  readonly refused: number;
  readonly bytes: number;
  /** Steps that ran as a graph. */
  readonly replays: number;
}

/** A validated program. `run` is one native call. */
export class Program {
  readonly #graphTotals = new BigUint64Array(4);
  readonly #library: KernelLibrary;
  readonly #dims = new Uint32Array(16);
  readonly #dimsPointer = ptr(this.#dims);
  #handle: number;

  constructor(library: KernelLibrary, handle: number) {
    this.#library = library;
    this.#handle = handle;
  }

  /** Bytes the program holds besides its buffers. */
  get workspaceBytes(): number {
    return Number(this.#library.functions.mistral_program_workspace_bytes(this.#live()));
  }

  /**
   * Runs one step with these values of the symbolic dimensions; returns when the outputs are written.
   * @throws MistralError `backend` when an input points outside its tensor; nothing behind it was computed.
   */
  run(dims: readonly number[]): void {
    this.#dims.set(dims);
    const status = this.#library.functions.mistral_program_run(this.#live(), this.#dimsPointer, dims.length);
    if (status !== 0) check(this.#library.functions, status);
  }

  /** Lets steps whose dimensions are all equal become CUDA graphs of up to this many bytes together. Of CUDA. */
  captureGraphs(budgetBytes: number): void {
    check(this.#library.functions, cudaFunctions().mistral_cuda_graph_budget(this.#live(), budgetBytes));
  }

  /** What became of it. */
  graphTotals(): GraphTotals {
    const { mistral_cuda_graph_totals } = cudaFunctions();
    check(this.#library.functions, mistral_cuda_graph_totals(this.#live(), ptr(this.#graphTotals)));
    const [captured, refused, bytes, replays] = [...this.#graphTotals].map(Number) as [
      number,
      number,
      number,
      number,
    ];
    return { captured, refused, bytes, replays };
  }

  /** Measures the stages from now on, from zero. Of the processor. */
  startProfile(): void {
    startProfile(this.#library as CpuLibrary, this.#live());
  }

  /** What was measured since; empty before `startProfile`. Of the processor. */
  profile(): StageTime[] {
    return readProfile(this.#library as CpuLibrary, this.#live());
  }

  free(): void {
    if (this.#handle === 0) return;
    check(this.#library.functions, this.#library.functions.mistral_program_free(this.#handle));
    this.#handle = 0;
  }

  #live(): number {
    if (this.#handle === 0) throw new Error("program is freed");
    return this.#handle;
  }
}
