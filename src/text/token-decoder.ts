/**
 * From a token's text in the vocabulary to the bytes it stands for. Owns the meaning of the `decoder` object of a
 * tokenizer.json. Decoding is bytes first and UTF-8 last, so that a character split over tokens comes out whole.
 */

import { MistralError } from "../errors.ts";
import { byteLevelBytes } from "./byte-level.ts";
import type { TokenizerNode } from "./pre-tokenizer.ts";
import { SPACE_MARKER } from "./token-models.ts";

export interface TokenDecoder {
  /** The bytes of a token that is not an added one. */
  bytes(text: string): Uint8Array;
  /** The bytes of an added token. */
  addedBytes(text: string): Uint8Array;
  /** At most this many spaces are taken from the start of a decoded text. */
  readonly leadingSpaces: number;
}

const utf8 = new TextEncoder();
const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/;

export const BYTE_LEVEL_DECODER: TokenDecoder = {
  bytes: byteLevelBytes,
  addedBytes: (text) => utf8.encode(text),
  leadingSpaces: 0,
};

interface Replacement {
  readonly from: string;
  readonly to: string;
}

/** SentencePiece's way: replacements in the text, `<0xNN>` tokens are bytes. */
export function characterDecoder(options: {
  readonly replacements: readonly Replacement[];
  readonly byteFallback: boolean;
  readonly leadingSpaces: number;
}): TokenDecoder {
  const bytes = (text: string): Uint8Array => {
    const byte = options.byteFallback && text.length === 6 ? BYTE_TOKEN.exec(text) : null;
    if (byte !== null) return Uint8Array.of(Number.parseInt(byte[1]!, 16));
    let replaced = text;
    for (const { from, to } of options.replacements) replaced = replaced.replaceAll(from, to);
    return utf8.encode(replaced);
  };
  return { bytes, addedBytes: bytes, leadingSpaces: options.leadingSpaces };
}

/** The decoder of a SentencePiece vocabulary. */
export function sentencePieceDecoder(stripsLeadingSpace: boolean): TokenDecoder {
  return characterDecoder({
    replacements: [{ from: SPACE_MARKER, to: " " }],
    byteFallback: true,
    leadingSpaces: stripsLeadingSpace ? 1 : 0,
  });
}

function unsupported(what: string): MistralError {
  return new MistralError("unsupported_model", `tokenizer: decoder ${what} is not supported`);
}

function flatten(node: TokenizerNode): TokenizerNode[] {
  return node.type === "Sequence" ? (node.decoders as TokenizerNode[]).flatMap(flatten) : [node];
}

function literal(node: TokenizerNode): Replacement {
  const pattern = node.pattern as TokenizerNode;
  const from = pattern.String;
  if (typeof from !== "string" || from === "") throw unsupported(`pattern ${JSON.stringify(pattern)}`);
  return { from, to: String(node.content ?? "") };
}

/** Compiles the `decoder` of a tokenizer.json. Throws `unsupported_model` for kinds that are not known. */
export function compileDecoder(node: TokenizerNode | null | undefined): TokenDecoder {
  if (node === null || node === undefined) throw unsupported("null");
  const nodes = flatten(node);
  if (nodes.some(({ type }) => type === "ByteLevel")) {
    if (nodes.length > 1) throw unsupported("ByteLevel in a sequence");
    return BYTE_LEVEL_DECODER;
  }
  const replacements: Replacement[] = [];
  let byteFallback = false;
  let leadingSpaces = 0;
  for (const step of nodes) {
    switch (step.type) {
      case "Replace":
        replacements.push(literal(step));
        break;
      case "ByteFallback":
        byteFallback = true;
        break;
      case "Fuse":
        break;
      case "Strip":
        if (step.content !== " " || Number(step.stop ?? 0) !== 0) throw unsupported(JSON.stringify(step));
        leadingSpaces = Number(step.start ?? 0);
        break;
      case "Metaspace": {
        const from = typeof step.replacement === "string" ? step.replacement : SPACE_MARKER;
        replacements.push({ from, to: " " });
        const never = step.prepend_scheme === "never" || step.add_prefix_space === false;
        if (!never) leadingSpaces = 1;
        break;
      }
      default:
        throw unsupported(String(step.type));
    }
  }
  return characterDecoder({ replacements, byteFallback, leadingSpaces });
}
