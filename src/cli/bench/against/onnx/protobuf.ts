/** Writes protocol buffers: numbered fields of a message, in the order in which they are given. */

const VARINT = 0;
const LENGTH_DELIMITED = 2;
const FIXED_32 = 5;

export class MessageWriter {
  readonly #parts: Uint8Array[] = [];
  #bytes = 0;

  /** An integer, negative ones as int64. */
  integer(field: number, value: number | bigint): this {
    return this.#tag(field, VARINT).#varint(value);
  }

  float(field: number, value: number): this {
    return this.#tag(field, FIXED_32).#append(new Uint8Array(Float32Array.of(value).buffer));
  }

  text(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  bytes(field: number, value: Uint8Array): this {
    return this.#tag(field, LENGTH_DELIMITED).#varint(value.byteLength).#append(value);
  }

  message(field: number, write: (inner: MessageWriter) => void): this {
    const inner = new MessageWriter();
    write(inner);
    this.#tag(field, LENGTH_DELIMITED).#varint(inner.#bytes);
    for (const part of inner.#parts) this.#append(part);
    return this;
  }

  finish(): Uint8Array {
    const result = new Uint8Array(this.#bytes);
    let at = 0;
    for (const part of this.#parts) {
      result.set(part, at);
      at += part.byteLength;
    }
    return result;
  }

  #tag(field: number, wireType: number): this {
    return this.#varint((field << 3) | wireType);
  }

  #varint(value: number | bigint): this {
    let rest = BigInt.asUintN(64, BigInt(value));
    const bytes: number[] = [];
    while (rest > 0x7fn) {
      bytes.push(Number(rest & 0x7fn) | 0x80);
      rest >>= 7n;
    }
    bytes.push(Number(rest));
    return this.#append(Uint8Array.from(bytes));
  }

  #append(part: Uint8Array): this {
    this.#parts.push(part);
    this.#bytes += part.byteLength;
    return this;
  }
}
