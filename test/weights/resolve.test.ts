import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type ModelRequest, resolveModel } from "../../src/weights/resolve.ts";
import { expectMistralRejection } from "../support/expect-error.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const root = temporaryFolder("resolve");
const folder = join(root, "my-model");
mkdirSync(folder);
for (const name of ["a.gguf", "s-00001-of-00002.gguf", "s-00002-of-00002.gguf"])
  writeFileSync(join(folder, name), "");

/** No request leaves: whatever asks the hub would fail here with the name of the variable. */
const environment = { HOME: root, HF_HUB_OFFLINE: "1" };

function resolve(more: Partial<ModelRequest>) {
  return resolveModel({ model: undefined, file: undefined, onProgress: () => {}, environment, ...more });
}

test("a folder and a file stand for themselves", async () => {
  const inFolder = { tokenizerFolder: folder, source: "local" } as const;
  expect(await resolve({ model: folder })).toEqual({ id: "my-model", checkpointPath: folder, ...inFolder });
  const expected = { id: "a", checkpointPath: join(folder, "a.gguf"), ...inFolder };
  expect(await resolve({ model: join(folder, "a.gguf") })).toEqual(expected);
  expect(await resolve({ file: join(folder, "a.gguf") })).toEqual(expected);
  expect(await resolve({ model: "~/my-model" })).toMatchObject({ checkpointPath: folder });
  expect(await resolve({ model: folder, file: "a.gguf" })).toMatchObject({
    checkpointPath: join(folder, "a.gguf"),
  });
});

test("shards are named one by one or by any of them", async () => {
  const shards = ["s-00002-of-00002.gguf", "s-00001-of-00002.gguf"];
  const first = { checkpointPath: join(folder, shards[1]!) };
  expect(await resolve({ model: folder, file: shards[0]! })).toMatchObject(first);
  expect(await resolve({ model: folder, file: shards.join(";") })).toMatchObject(first);
  const mixed = resolve({ model: folder, file: `a.gguf;${shards[0]}` });
  await expectMistralRejection(mixed, "model_not_found", "not the shards of one model");
});

test("what is missing locally is never looked for on the hub", async () => {
  const missing = (request: Partial<ModelRequest>, ...parts: string[]) =>
    expectMistralRejection(resolve(request), "model_not_found", ...parts);
  await missing({ model: folder, file: "b.gguf" }, "no GGUF file b.gguf", "a.gguf", folder);
  await missing({ model: join(root, "nothing") }, "no such file or folder");
  await missing({ model: "./nothing" }, "no such file or folder", "owner/name");
  await missing({ model: "nothing.gguf" }, "no such file or folder");
  await missing({ model: "a/b/c" }, "no such file or folder");
  await missing({ file: "nothing.gguf" }, "no such file: nothing.gguf");
  await missing({ model: join(folder, "a.gguf"), file: "b.gguf" }, "is a file");
});

test("names that are no hub ids, and revisions that lead elsewhere, are refused", async () => {
  for (const model of ["a b", "a/..", "--/x", "a--b/c", "", "a/b?c", "x".repeat(200)]) {
    await expectMistralRejection(resolve({ model }), "model_not_found", JSON.stringify(model));
  }
  for (const revision of ["../../x", "/etc", "", "a b"]) {
    await expectMistralRejection(resolve({ model: "a/b", revision }), "model_not_found", "not a branch");
  }
});

test("a hub id that is in no cache fails with the cache that was searched", async () => {
  await expectMistralRejection(
    resolve({ model: "org/name" }),
    "model_not_found",
    "huggingface/hub",
    "HF_HUB_OFFLINE",
  );
});
