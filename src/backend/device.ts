/**
 * Device and Buffer, with Program the owners of native memory. Every handle has one owner, is freed once, and is
 * only used by the thread that made it. On the CPU all buffers are host memory, so views copy nothing; a CUDA
 * device has memory of its own, which only `write` and `read` reach, and host memory that it sees too.
 */

import { FFIType, JSCallback, type Pointer, ptr, toArrayBuffer } from "bun:ffi";
import { MistralError } from "../errors.ts";
import { arrangeThreads, type CpuThreadOptions } from "./cpu-threads.ts";
import { cudaFunctions } from "./cuda-functions.ts";
import { type DeviceInfo, type DeviceMemory, readDeviceInfo } from "./device-info.ts";
import { check, type DeviceKind, type KernelLibrary, openCpuLibrary, openCudaLibrary } from "./library.ts";
import { Program } from "./program.ts";

export interface CpuDeviceOptions extends CpuThreadOptions {
  readonly kind: "cpu";
  /** Threads that run a program, the calling one included. */
  readonly threads: number;
  /** Forces an instruction-set level; the default is the best that is built and that the processor has. */
  readonly instructionSet?: string;
}

export interface CudaDeviceOptions {
  readonly kind: "cuda";
  /** Of the devices that the driver shows (`CUDA_VISIBLE_DEVICES`), from 0. */
  readonly index: number;
}

export type DeviceOptions = CpuDeviceOptions | CudaDeviceOptions;

export interface ProgramOptions {
  /**
   * Copies the block-quantised weights into a layout that multiplies several times faster, at the price of that
   * copy's memory; the pages of a mapped original are given back. Results differ in rounding. Of the CPU alone.
   */
  readonly repack?: boolean;
  /**
   * The bits of a row's results depend on that row alone, however many rows a step has. On the CPU they always do;
   * on CUDA it leaves faster products of many rows unused.
   */
  readonly deterministic?: boolean;
}

const FLAG_REPACK = 1;
const FLAG_DETERMINISTIC = 2;

/**
 * `device`: memory of the device. `host`: memory that the host writes and reads between steps through views, and
 * that the device sees. `bulk`: memory of the device that is used in large pieces, as weights and caches are. On the
 * CPU all are host memory; what is bulk lies in huge pages and so comes into being 2 MiB at a time.
 */
export type BufferKind = "device" | "host" | "bulk";

const BUFFER_KINDS = { device: 0, host: 1, bulk: 2 } as const satisfies Record<BufferKind, number>;

const DEVICE_OPTIONS_BYTES = 16;
const LIBRARY_TEXT_BYTES = 512;

/** Receives the handles that native functions write. */
const handleOut = new BigUint64Array(1);
const handleOutPointer = ptr(handleOut);

export class Device {
  readonly info: DeviceInfo;
  readonly #library: KernelLibrary;
  #handle: number;

  private constructor(library: KernelLibrary, handle: number, kind: DeviceKind, index: number) {
    this.#library = library;
    this.#handle = handle;
    this.info = this.#describe(kind, index).info;
  }

  /** @throws MistralError `backend`, or `invalid_configuration` for an impossible option. */
  static open(options: DeviceOptions): Device {
    if (options.kind === "cuda") return Device.#open(openCudaLibrary(), "cuda", options.index, 0);
    const library = openCpuLibrary(options.instructionSet);
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
    const device = Device.#open(library, "cpu", 0, threads);
    try {
      arrangeThreads(library, device.#handle, options);
    } catch (error) {
      device.close();
      throw error;
    }
    return device;
  }

  /**
   * CUDA devices that the driver shows.
   * @throws MistralError `backend` saying why CUDA cannot be used.
   */
  static cudaCount(): number {
    const { functions } = openCudaLibrary();
    const count = new Uint32Array(1);
    check(functions, functions.mistral_device_count(ptr(count)));
    return count[0]!;
  }

  /**
   * What a CUDA device is and how much memory it has, without opening it; 0 of it is called free.
   * @throws MistralError `backend` saying why CUDA cannot be used.
   */
  static describeCuda(index: number): ReturnType<typeof readDeviceInfo> {
    const { mistral_cuda_describe } = cudaFunctions();
    return readDeviceInfo(openCudaLibrary(), "cuda", index, (out) => mistral_cuda_describe(index, out));
  }

  static #open(library: KernelLibrary, kind: DeviceKind, index: number, threads: number): Device {
    if (!Number.isInteger(index) || index < 0 || index > 0xffff) {
      throw new MistralError("invalid_configuration", `${index} is not the index of a device`, {
        parameter: "device",
      });
    }
    const options = Uint32Array.of(DEVICE_OPTIONS_BYTES, index, threads, 0);
    const { functions } = library;
    check(functions, functions.mistral_device_open(ptr(options), handleOutPointer));
    return new Device(library, Number(handleOut[0]), kind, index);
  }

  /** What the device's own memory has at the moment; a CPU has none and gives zeros. */
  memory(): DeviceMemory {
    return this.#describe(this.info.kind, this.info.index).memory;
  }

  /** What computes matrix products of many rows on CUDA: cuBLASLt and its version, or why it is not used. */
  productLibrary(): { readonly used: boolean; readonly text: string } {
    const text = new Uint8Array(LIBRARY_TEXT_BYTES);
    const used = new Uint32Array(1);
    const { mistral_cuda_products } = cudaFunctions();
    const length = Number(mistral_cuda_products(this.#live(), ptr(used), ptr(text), text.length));
    return {
      used: used[0] === 1,
      text: new TextDecoder().decode(text.subarray(0, Math.min(length, text.length))),
    };
  }

  /** Zeroed memory. On the CPU it is page-aligned, and pages come into being when they are first touched. */
  createBuffer(bytes: number, kind: BufferKind = "device"): Buffer {
    const { functions } = this.#library;
    check(
      functions,
      functions.mistral_buffer_create(this.#live(), bytes, BUFFER_KINDS[kind], handleOutPointer),
    );
    return new Buffer(this.#library, Number(handleOut[0]), bytes);
  }

  /** Part of a file, read-only: a view of it on the CPU, a copy in the device's memory on CUDA. */
  mapFile(path: string, offset: number, bytes: number): Buffer {
    const { functions } = this.#library;
    const text = new TextEncoder().encode(`${path}\0`);
    check(
      functions,
      functions.mistral_buffer_map_file(this.#live(), ptr(text), offset, bytes, handleOutPointer),
    );
    return new Buffer(this.#library, Number(handleOut[0]), bytes);
  }

  /** A copy of part of a file in the device's memory, read-only; `onProgress` is told the bytes that are there. Of CUDA. */
  uploadFile(path: string, offset: number, bytes: number, onProgress: (done: number) => void): Buffer {
    const { functions } = this.#library;
    const text = new TextEncoder().encode(`${path}\0`);
    const progress = new JSCallback((done: number | bigint) => onProgress(Number(done)), {
      args: [FFIType.u64],
      returns: FFIType.void,
    });
    try {
      const { mistral_cuda_map_file } = cudaFunctions();
      const target = progress.ptr;
      if (target === null) throw new Error("the callback has no address");
      check(
        functions,
        mistral_cuda_map_file(this.#live(), ptr(text), offset, bytes, target, handleOutPointer),
      );
    } finally {
      progress.close();
    }
    return new Buffer(this.#library, Number(handleOut[0]), bytes);
  }

  /** The caller's memory, without a copy; the buffer keeps the array alive. Of the CPU alone. */
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
      (options.repack === true ? FLAG_REPACK : 0) |
        (options.deterministic === true && this.info.kind === "cuda" ? FLAG_DETERMINISTIC : 0),
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

  #describe(kind: DeviceKind, index: number): ReturnType<typeof readDeviceInfo> {
    const { mistral_device_info } = this.#library.functions;
    return readDeviceInfo(this.#library, kind, index, (out) => mistral_device_info(this.#live(), out));
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

  /** Whether the host sees the memory, so that views exist. */
  get isVisible(): boolean {
    return this.#address !== 0;
  }

  /** Copies `source` to `offset`, whatever the kind of memory. */
  write(offset: number, source: Uint8Array): void {
    this.#checkRange(offset, source.byteLength);
    if (source.byteLength === 0) return;
    const { functions } = this.#library;
    check(functions, functions.mistral_buffer_write(this.handle, offset, ptr(source), source.byteLength));
  }

  /** Copies bytes from `offset` into all of `target`, whatever the kind of memory. */
  read(offset: number, target: Uint8Array): void {
    this.#checkRange(offset, target.byteLength);
    if (target.byteLength === 0) return;
    const { functions } = this.#library;
    check(functions, functions.mistral_buffer_read(this.handle, offset, ptr(target), target.byteLength));
  }

  free(): void {
    if (this.#handle === 0) return;
    check(this.#library.functions, this.#library.functions.mistral_buffer_free(this.#handle));
    this.#handle = 0;
  }

  #view(offset: number, bytes: number): ArrayBuffer {
    this.#checkRange(offset, bytes);
    if (bytes === 0) return new ArrayBuffer(0);
    if (this.#address === 0) {
      throw new Error("the buffer is memory of the device, which the host cannot see; use read and write");
    }
    return toArrayBuffer((this.#address + offset) as Pointer, 0, bytes);
  }

  #checkRange(offset: number, bytes: number): void {
    if (this.#handle === 0) throw new Error("buffer is freed");
    if (offset >= 0 && bytes >= 0 && offset + bytes <= this.bytes) return;
    throw new RangeError(`bytes ${offset} to ${offset + bytes} of a buffer of ${this.bytes}`);
  }
}
