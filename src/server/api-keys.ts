/**
 * The keys that clients may present: parsed from settings, kept only as keyed hashes, compared in constant time.
 * Knows no routes.
 */

import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { MistralError } from "../errors.ts";

interface NamedKey {
  readonly name: string;
  readonly digest: Buffer;
}

/** A name, and a key that is more than padding: `Zm9vYmFy==` is a key alone. */
const NAMED = /^([A-Za-z][\w.-]{0,63})=(.*[^=].*)$/;
/** What an HTTP header can carry unharmed. */
const SENDABLE = /^[\x21-\x7e]{1,512}$/;

export class KeyRing {
  /** Of this process alone: digests that leak say nothing about keys. */
  readonly #secret = randomBytes(32);
  readonly #keys: readonly NamedKey[];

  /**
   * @param entries each a key, or `name=key`; keys without a name are called `key-1`, `key-2`, ...
   * Throws invalid_configuration for a key that no client could send and for a name or key given twice.
   */
  constructor(entries: readonly string[]) {
    const keys: NamedKey[] = [];
    for (const [index, entry] of entries.entries()) {
      const named = NAMED.exec(entry);
      const name = named?.[1] ?? `key-${index + 1}`;
      const key = named?.[2] ?? entry;
      if (!SENDABLE.test(key)) {
        throw refusal(
          `the API key "${name}" has characters that no HTTP header can carry, or none, or over 512`,
        );
      }
      const digest = this.#digest(key);
      const same = keys.find((known) => known.name === name || known.digest.equals(digest));
      if (same !== undefined)
        throw refusal(`the API keys "${same.name}" and "${name}" have one name or one key`);
      keys.push({ name, digest });
    }
    this.#keys = keys;
  }

  get size(): number {
    return this.#keys.length;
  }

  /** The name of this key, or undefined. Takes the same time whichever key it is, and whether it is one. */
  nameOf(presented: string): string | undefined {
    const digest = this.#digest(presented);
    let found: string | undefined;
    for (const { name, digest: known } of this.#keys) if (timingSafeEqual(known, digest)) found = name;
    return found;
  }

  #digest(key: string): Buffer {
    return createHmac("sha256", this.#secret).update(key).digest();
  }
}

/** The entries of a key file: one a line; blank lines and lines that begin with # are left out. Throws invalid_configuration. */
export function readKeyFile(path: string): readonly string[] {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw refusal(`the file of API keys cannot be read: ${(cause as Error).message}`, cause);
  }
  const entries = text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  if (entries.length === 0) throw refusal(`the file of API keys ${path} holds none`);
  return entries;
}

/** Every key a request presents: a bearer token, an `x-api-key`, or the password a browser asked its user for. */
export function presentedKeys(headers: Headers): readonly string[] {
  const keys: string[] = [];
  const authorization = headers.get("authorization") ?? "";
  const [, scheme = "", credentials = ""] = /^(\S+)\s+(\S+)\s*$/.exec(authorization) ?? [];
  if (scheme.toLowerCase() === "bearer") keys.push(credentials);
  if (scheme.toLowerCase() === "basic") {
    const text = Buffer.from(credentials, "base64").toString("latin1");
    keys.push(text.slice(text.indexOf(":") + 1));
  }
  const key = headers.get("x-api-key");
  if (key !== null) keys.push(key);
  return keys;
}

function refusal(message: string, cause?: unknown): MistralError {
  return new MistralError("invalid_configuration", message, { parameter: "--api-key", cause });
}
