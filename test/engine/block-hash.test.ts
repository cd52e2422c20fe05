import { expect, test } from "bun:test";
import { BlockHasher, type BlockScope, NO_PARENT } from "../../src/engine/block-hash.ts";

const SECRET = new Uint8Array(32).fill(7);
const TOKENS = Int32Array.of(1, 2, 3, 4, 5, 6, 7, 8);
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test("equal content has equal keys; every field makes a difference", () => {
  const hasher = new BlockHasher(SECRET);
  const first = hasher.key(NO_PARENT, TOKENS, 0, 4);
  expect(first).toHaveLength(32);
  expect(new BlockHasher(SECRET).key(NO_PARENT, TOKENS, 0, 4)).toBe(first);
  const scopes: BlockScope[] = [
    {},
    { adapter: bytes("a") },
    { adapter: bytes("ab") },
    { media: bytes("a") },
    { tenant: bytes("a") },
    { adapter: bytes("a"), tenant: bytes("b") },
    { adapter: bytes("ab"), tenant: bytes("") },
    { adapter: bytes(""), tenant: bytes("ab") },
  ];
  const keys = [
    ...scopes.map((scope) => hasher.key(NO_PARENT, TOKENS, 0, 4, scope)),
    hasher.key(first, TOKENS, 0, 4),
    hasher.key(NO_PARENT, TOKENS, 4, 8),
    hasher.key(NO_PARENT, TOKENS, 0, 8),
    hasher.key(NO_PARENT, TOKENS, 0, 3),
    new BlockHasher(new Uint8Array(32)).key(NO_PARENT, TOKENS, 0, 4),
    new BlockHasher().key(NO_PARENT, TOKENS, 0, 4),
  ];
  expect(new Set(keys).size).toBe(keys.length);
  expect(keys[0]).toBe(first);
});

test("a scope that spells out the bytes of tokens is not taken for tokens", () => {
  const hasher = new BlockHasher(SECRET);
  const tail = new Uint8Array(Int32Array.of(5).buffer);
  expect(hasher.key(NO_PARENT, TOKENS, 0, 4, { adapter: tail })).not.toBe(
    hasher.key(NO_PARENT, TOKENS, 0, 5),
  );
});

test("keys survive the trip through a string: a parent of all byte values chains", () => {
  const hasher = new BlockHasher(SECRET);
  const parents = Array.from({ length: 256 }, (_, value) => String.fromCharCode(value).repeat(32));
  const keys = parents.map((parent) => hasher.key(parent, TOKENS, 0, 4));
  expect(new Set(keys).size).toBe(256);
});
