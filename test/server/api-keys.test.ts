import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { MistralError } from "../../src/errors.ts";
import { KeyRing, presentedKeys, readKeyFile } from "../../src/server/api-keys.ts";
import { expectMistralError } from "../support/expect-error.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const folder = temporaryFolder("keys");

describe("keys", () => {
  test("have the name they are given, or one by their place", () => {
    const ring = new KeyRing(["alice=sk-1", "sk-2", "Zm9vYmFy=="]);
    expect(ring.size).toBe(3);
    expect(ring.nameOf("sk-1")).toBe("alice");
    expect(ring.nameOf("sk-2")).toBe("key-2");
    // Padding is part of a key, not a name with an empty key.
    expect(ring.nameOf("Zm9vYmFy==")).toBe("key-3");
  });

  test("are found whole only", () => {
    const ring = new KeyRing(["alice=sk-1234", "other"]);
    for (const wrong of ["", "sk-123", "sk-12345", "SK-1234", "alice=sk-1234", "alice", " sk-1234"]) {
      expect(ring.nameOf(wrong), wrong).toBeUndefined();
    }
  });

  test("are nowhere in what the ring holds", () => {
    const ring = new KeyRing(["alice=sk-very-secret"]);
    expect(Bun.inspect(ring, { depth: 9 })).not.toContain("very-secret");
    expect(JSON.stringify(ring)).not.toContain("very-secret");
  });

  test("that no client could send, or that are given twice, are refused without being shown", () => {
    for (const entries of [
      ["caf\u00e9-secret"],
      ["two words"],
      [""],
      ["a=secret", "a=other"],
      ["secret", "b=secret"],
    ]) {
      let message = "";
      try {
        new KeyRing(entries);
      } catch (error) {
        message = `${(error as MistralError).code}: ${(error as MistralError).message}`;
      }
      expect(message).toStartWith("invalid_configuration: the API key");
      expect(message).not.toContain("secret");
    }
  });

  test("come from a file line by line", async () => {
    const path = join(folder, "keys");
    await Bun.write(path, "# team\r\nalice=one\r\n\r\n  two  \n");
    expect(readKeyFile(path)).toEqual(["alice=one", "two"]);
    await Bun.write(path, "# nobody\n");
    expectMistralError(() => readKeyFile(path), "invalid_configuration", "holds none");
    expectMistralError(() => readKeyFile(join(folder, "none")), "invalid_configuration", "cannot be read");
  });
});

test("a request presents keys in any of three ways", () => {
  const keys = (headers: Record<string, string>) => presentedKeys(new Headers(headers));
  expect(keys({ authorization: "Bearer k" })).toEqual(["k"]);
  expect(keys({ authorization: "bearer   k " })).toEqual(["k"]);
  expect(keys({ "x-api-key": "k" })).toEqual(["k"]);
  expect(keys({ authorization: `Basic ${btoa("me:k:2")}` })).toEqual(["k:2"]);
  expect(keys({ authorization: "Bearer a", "x-api-key": "b" })).toEqual(["a", "b"]);
  for (const authorization of ["Bearer", "Bearer a b", "Token k", ""])
    expect(keys({ authorization })).toEqual([]);
});
