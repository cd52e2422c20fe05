/**
 * The byte alphabet of byte-level BPE (GPT-2): every byte is written as one printable character, so that a
 * vocabulary can be a list of strings. Owns only that mapping.
 */

/** Bytes that stand for themselves; the other 68 are written as U+0100 onwards, in byte order. */
function isPrintable(byte: number): boolean {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/** Character code of each byte; index is the byte. */
export const BYTE_TO_CHARACTER = new Uint16Array(256);
const characterToByte = new Int16Array(0x200).fill(-1);

let shifted = 0x100;
for (let byte = 0; byte < 256; byte++) {
  const code = isPrintable(byte) ? byte : shifted++;
  BYTE_TO_CHARACTER[byte] = code;
  characterToByte[code] = byte;
}

const utf8 = new TextEncoder();

/** The text of a byte-level token that stands for these bytes. */
export function byteLevelText(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(BYTE_TO_CHARACTER[byte]!);
  return text;
}

/**
 * The bytes a byte-level token stands for. A token with a character outside the alphabet (an added token such as
 * one with a space in it) stands for its own UTF-8 bytes, as in Hugging Face's ByteLevel decoder.
 */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = characterToByte[token.charCodeAt(i)] ?? -1;
    if (byte < 0) return utf8.encode(token);
    bytes[i] = byte;
  }
  return bytes;
}
