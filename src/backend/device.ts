/**
 * Device, Buffer and Program: the owners of native memory. Every handle has one owner, is freed once, and is
 * only used by the thread that made it. On the CPU all buffers are host memory, so views copy nothing.
 */

import { type Pointer, ptr, toArrayBuffer } from "bun:ffi";
import { MistralError } from "../errors.ts";
import type { InstructionSet } from "./instruction-set.ts";
import { check, type KernelLibrary, openLibrary } from "./library.ts";

export interface DeviceOptions {
  /** Threads that run a program, the calling one included. */
  readonly threads: number;
  /** Forces an instruction-set level; the default is the best that is built and that the processor has. */
  readonly instructionSet?: string;
}

export interface ProgramOptions {
  /**
   * Copies the block-quantised weights into a layout that multiplies several times faster, at the price of that
   * copy's memory; the pages of a mapped original are given back. Results differ in rounding.
   */
  readonly repack?: boolean;
}

const FLAG_REPACK = 1;

export interface DeviceInfo {
  readonly threads: number;
  readonly instructionSet: InstructionSet;
}

/** Receives the handles that native functions write. */
const handleOut = new BigUint64Array(1);
const handleOutPointer = ptr(handleOut);

export class Device {
  readonly info: DeviceInfo;
  readonly #library: KernelLibrary;
  #handle: number;

  private constructor(library: KernelLibrary, handle: number, threads: number) {
    this.#library = library;
    this.#handle = handle;
    this.info = { threads, instructionSet: library.instructionSet };
  }

  /** @throws MistralError `backend`, or `invalid_configuration` for an impossible option. */
  static open(options: DeviceOptions): Device {
    const library = openLibrary(options.instructionSet);
    const { threads } = options;
    if (!Number.isInteger(threads) || threads < 1 || threads > library.threadsMax) {
      throw new MistralError(
        "invalid_configuration",
        `${threads} threads; 1 to ${library.threadsMax} are possible`,
        {
          parameter: "threads",
        },
      );
    }
    check(library.functions, library.functions.mistral_device_open(threads, handleOutPointer));
    return new Device(library, Number(handleOut[0]), threads);
  }

  /** Zeroed memory, page-aligned; pages come into being when they are first touched. */
  createBuffer(bytes: number): Buffer {
    const { functions } = this.#library;
    check(functions, functions.mistral_buffer_create(this.#live(), bytes, handleOutPointer));
    return new Buffer(this.#library, Number(handleOut[0]), bytes);
  }

  /** A read-only view of part of a file. */
  mapFile(path: string, offset: number, bytes: number): Buffer {
    const { functions } = this.#library;
    const text = new TextEncoder().encode(`${path}\0`);
    check(
      functions,
      functions.mistral_buffer_map_file(this.#live(), ptr(text), offset, bytes, handleOutPointer),
    );
    return new Buffer(this.#library, Number(handleOut[0]), bytes);
  }

  /** The caller's memory, without a copy; the buffer keeps the array alive. */
  wrap(memory: Uint8Array): Buffer {
    const { functions } = this.#library;
    check(
      functions,
      functions.mistral_buffer_wrap(this.#live(), ptr(memory), memory.byteLength, handleOutPointer),
    );
    return new Buffer(this.#library, Number(handleOut[0]), memory.byteLength, memory);
  }

  /**
   * Validates an encoded program over these buffers, which must outlive it.
   * @throws MistralError `backend` naming the record and the reason.
   */
  createProgram(words: Uint32Array, buffers: readonly Buffer[], options: ProgramOptions = {}): Program {
    const { functions } = this.#library;
    const handles = BigUint64Array.from(buffers, (buffer) => BigInt(buffer.handle));
    // An empty array has no address.
    const list = handles.length > 0 ? ptr(handles) : handleOutPointer;
    const status = functions.mistral_program_create(
      this.#live(),
      ptr(words),
      words.length,
      list,
      handles.length,
      options.repack === true ? FLAG_REPACK : 0,
      handleOutPointer,
    );
    check(functions, status);
    return new Program(this.#library, Number(handleOut[0]));
  }

  close(): void {
    if (this.#handle === 0) return;
    check(this.#library.functions, this.#library.functions.mistral_device_close(this.#handle));
    this.#handle = 0;
  }

  #live(): number {
    if (this.#handle === 0) throw new Error("device is closed");
    return this.#handle;
  }
}

export class Buffer {
  readonly bytes: number;
  readonly #library: KernelLibrary;
  readonly #address: number;
  /** The caller's memory that this buffer wraps; held here so that it is not collected. */
  readonly wrapped: Uint8Array | undefined;
  #handle: number;

  constructor(library: KernelLibrary, handle: number, bytes: number, memory?: Uint8Array) {
    this.#library = library;
    this.#handle = handle;
    this.bytes = bytes;
    this.wrapped = memory;
    this.#address = Number(library.functions.mistral_buffer_address(handle));
  }

  get handle(): number {
    if (this.#handle === 0) throw new Error("buffer is freed");
    return this.#handle;
  }

  /** A view without a copy; it must not be used after `free`. One view is at most 4 GiB. */
  u8(offset: number, length: number): Uint8Array {
    return new Uint8Array(this.#view(offset, length));
  }

  i32(offset: number, length: number): Int32Array {
    return new Int32Array(this.#view(offset, length * 4));
  }

  f32(offset: number, length: number): Float32Array {
    return new Float32Array(this.#view(offset, length * 4));
  }

  free(): void {
    if (this.#handle === 0) return;
    check(this.#library.functions, this.#library.functions.mistral_buffer_free(this.#handle));
    this.#handle = 0;
  }

  #view(offset: number, bytes: number): ArrayBuffer {
    if (this.#handle === 0) throw new Error("buffer is freed");
    if (offset < 0 || bytes < 0 || offset + bytes > this.bytes) {
      throw new RangeError(`bytes ${offset} to ${offset + bytes} of a buffer of ${this.bytes}`);
    }
    if (bytes === 0) return new ArrayBuffer(0);
    return toArrayBuffer((this.#address + offset) as Pointer, 0, bytes);
  }
}

/** A validated program. `run` is one native call. */
export class Program {
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
