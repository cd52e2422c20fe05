/**
 * Names the content of a full KV block: a keyed SHA-256 over domain-separated fields, chained through the key
 * of the block before it, so equal keys mean equal tokens from the very first one on.
 */

const DOMAIN = "mistral.ts kv block 1\0";
const SECRET_BYTES = 32;
const KEY_BYTES = 32;
const PARENT_OFFSET = SECRET_BYTES + DOMAIN.length;
const TOKENS_OFFSET = PARENT_OFFSET + KEY_BYTES;

/** What else than tokens decides the keys and values of a block. Each field is tagged and length-prefixed. */
export interface BlockScope {
  /** Adapter and its generation: a replaced adapter never sees the blocks of its former self. */
  readonly adapter?: Uint8Array;
  /** Digests of the images or sounds whose embeddings lie in the block. */
  readonly media?: Uint8Array;
  /** Keeps the blocks of tenants apart. Enough in the first block, since keys chain. */
  readonly tenant?: Uint8Array;
}

const SCOPE_FIELDS = ["adapter", "media", "tenant"] as const satisfies readonly (keyof BlockScope)[];

/** The parent of a sequence's first block. */
export const NO_PARENT = "\0".repeat(KEY_BYTES);

export class BlockHasher {
  readonly #secret: Uint8Array;
  readonly #digest = Buffer.alloc(KEY_BYTES);
  #message: Buffer;

  /** `secret`: 32 bytes. Fresh random ones per process make collisions impossible to search for from outside. */
  constructor(secret: Uint8Array = crypto.getRandomValues(new Uint8Array(SECRET_BYTES))) {
    if (secret.length !== SECRET_BYTES) throw new RangeError(`the secret has ${secret.length} bytes, not 32`);
    this.#secret = secret;
    this.#message = this.#prepare(TOKENS_OFFSET);
  }

  /** Key, as 32 Latin-1 characters, of the block that holds `tokens[start..end)` after the block `parent`. */
  key(parent: string, tokens: Int32Array, start: number, end: number, scope: BlockScope = {}): string {
    let bytes = TOKENS_OFFSET + 4 + (end - start) * 4;
    for (const field of SCOPE_FIELDS) {
      const value = scope[field];
      if (value !== undefined) bytes += 5 + value.length;
    }
    if (this.#message.length !== bytes) this.#message = this.#prepare(bytes);
    const message = this.#message;
    message.write(parent, PARENT_OFFSET, KEY_BYTES, "latin1");
    let at = message.writeUInt32LE(end - start, TOKENS_OFFSET);
    for (let index = start; index < end; index++) at = message.writeInt32LE(tokens[index]!, at);
    for (let tag = 0; tag < SCOPE_FIELDS.length; tag++) {
      const value = scope[SCOPE_FIELDS[tag]!];
      if (value === undefined) continue;
      at = message.writeUInt8(tag, at);
      at = message.writeUInt32LE(value.length, at);
      message.set(value, at);
      at += value.length;
    }
    Bun.SHA256.hash(message, this.#digest);
    return this.#digest.toString("latin1");
  }

  #prepare(bytes: number): Buffer {
    const message = Buffer.alloc(bytes);
    message.set(this.#secret, 0);
    message.write(DOMAIN, SECRET_BYTES, "latin1");
    return message;
  }
}
