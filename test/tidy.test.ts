/** What review forgets: floors, file sizes, banned words, barrel files, default exports, head comments, strays at the top. */

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, realpathSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";

const ROOT = dirname(import.meta.dir);
const LINES_MAX = 600;

/** All there is beside each other at the top of the repository. */
const TOP_LEVEL = [
  ".ci",
  ".dockerignore",
  ".gitignore",
  "Dockerfile",
  "LICENSE",
  "README.md",
  "bin",
  "biome.json",
  "build.zig",
  "bun.lock",
  "bunfig.toml",
  "docs",
  "kernels",
  "package.json",
  "src",
  "test",
  "tsconfig.json",
];

/** An import may only point to the same floor or down. */
const FLOORS: Readonly<Record<string, number>> = {
  cli: 7,
  server: 6,
  engine: 5,
  models: 4,
  graph: 3,
  weights: 2,
  backend: 1,
};

/** What the folders beside the tower may import of it: the element types, which are plain data. */
const BESIDE_MAY_IMPORT = ["src/backend/dtype.ts"];

/** The typed client takes its types from the server; nothing imports it. */
const CLIENT = "src/client.ts";

interface Source {
  /** From the root of the project, with slashes. */
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
}

function read(folder: string, extension: RegExp): Source[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => extension.test(name))
    .map((name) => {
      const path = join(folder, name);
      const text = readFileSync(join(ROOT, path), "utf8");
      return { path, text, lines: text.split("\n") };
    });
}

const sources = read("src", /\.ts$/);
const tests = read("test", /\.ts$/);
const kernels = read("kernels", /\.(zig|cu|cuh|metal|h|c|cpp)$/);
const handWritten = [...sources, ...tests, ...kernels].filter(({ path }) => !path.includes(".gen."));

/** Every module named by an import or export, static or dynamic, types included. */
function importsOf({ text }: Source): string[] {
  // The word "from" counts only in a statement that begins with import or export, not in a sentence.
  const pattern = /(?:^(?:import|export)\b[^"';]*?\bfrom\s*|\bimport\s*\(\s*|^import\s+)"([^"]+)"/gm;
  return [...text.matchAll(pattern)].map((match) => match[1]!);
}

/** `src/engine/x.ts` is on the floor `engine`; a file directly in src/ is on none. */
function folderOf(path: string): string | undefined {
  return /^src\/([^/]+)\//.exec(path)?.[1];
}

/** Whether this import goes up, or from beside the tower into it. */
function breaksFloors(from: string, target: string): boolean {
  const fromFloor = from === CLIENT ? FLOORS.cli : FLOORS[folderOf(from) ?? ""];
  const targetFloor = FLOORS[folderOf(target) ?? ""];
  if (targetFloor === undefined) return false;
  if (fromFloor === undefined) return !BESIDE_MAY_IMPORT.includes(target);
  return targetFloor > fromFloor;
}

/** `path:line: text` of each line that matches. */
function findLines(files: readonly Source[], pattern: RegExp): string[] {
  return files.flatMap(({ path, lines }) =>
    lines.flatMap((line, index) => (pattern.test(line) ? [`${path}:${index + 1}: ${line.trim()}`] : [])),
  );
}

/** What git keeps track of; undefined in a copy that is no repository of its own, and where git is missing. */
function trackedFiles(): string[] | undefined {
  if (Bun.which("git") === null) return undefined;
  const git = (...words: string[]) => Bun.spawnSync(["git", ...words], { cwd: ROOT, stderr: "ignore" });
  const top = git("rev-parse", "--show-toplevel");
  if (top.exitCode !== 0 || top.stdout.toString().trimEnd() !== realpathSync(ROOT)) return undefined;
  return git("ls-files", "-z").stdout.toString().split("\0").slice(0, -1);
}

const tracked = trackedFiles();

test("there is something to look at", () => {
  expect(sources.length).toBeGreaterThan(20);
  expect(kernels.length).toBeGreaterThan(3);
});

describe("imports", () => {
  test("point down the floors, and nothing beside the tower reaches into it", () => {
    const upward = sources.flatMap((source) =>
      importsOf(source)
        .filter((name) => name.startsWith("."))
        .map((name) => relative(ROOT, resolve(ROOT, dirname(source.path), name)))
        .filter((target) => breaksFloors(source.path, target))
        .map((target) => `${source.path} imports ${target}`),
    );
    expect(upward).toEqual([]);
  });

  test("the rule itself tells good from bad", () => {
    expect(breaksFloors("src/engine/a.ts", "src/server/b.ts")).toBe(true);
    expect(breaksFloors("src/text/a.ts", "src/weights/b.ts")).toBe(true);
    expect(breaksFloors("src/errors.ts", "src/cli/b.ts")).toBe(true);
    expect(breaksFloors("src/engine/a.ts", "src/models/b.ts")).toBe(false);
    expect(breaksFloors("src/text/a.ts", "src/backend/dtype.ts")).toBe(false);
    expect(breaksFloors("src/cli/a.ts", "src/text/b.ts")).toBe(false);
  });

  test("only src/backend knows bun:ffi", () => {
    const offenders = sources.filter(
      (source) => importsOf(source).includes("bun:ffi") && folderOf(source.path) !== "backend",
    );
    expect(offenders.map(({ path }) => path)).toEqual([]);
  });

  test("name the file with its extension", () => {
    const bare = sources.flatMap((source) =>
      importsOf(source)
        .filter((name) => name.startsWith(".") && !/\.\w+$/.test(name))
        .map((name) => `${source.path} imports ${name}`),
    );
    expect(bare).toEqual([]);
  });

  test("of packages are of declared dependencies", () => {
    const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as {
      dependencies: Record<string, string>;
    };
    const undeclared = sources.flatMap((source) =>
      importsOf(source)
        .filter((name) => !/^(\.|node:|bun:|bun$)/.test(name))
        .map((name) => /^(@[^/]+\/)?[^/]+/.exec(name)![0])
        .filter((name) => !(name in manifest.dependencies))
        .map((name) => `${source.path} imports ${name}`),
    );
    expect(undeclared).toEqual([]);
  });
});

describe("files", () => {
  if (tracked === undefined) {
    test("of the top level: NOT COMPARED, this is no git repository or git is missing", () => {
      expect(readdirSync(ROOT)).toContain("package.json");
    });
  } else {
    test("of the top level are these and no others", () => {
      expect([...new Set(tracked.map((path) => path.split("/")[0]!))].sort()).toEqual(TOP_LEVEL);
    });
  }

  test(`have at most ${LINES_MAX} lines`, () => {
    const long = handWritten.filter(({ lines }) => lines.length > LINES_MAX);
    expect(long.map(({ path, lines }) => `${path}: ${lines.length} lines`)).toEqual([]);
  });

  test("of src and kernels say at their head what they own", () => {
    const headless = [...sources, ...kernels].filter(({ text }) => !/^(\/\*\*|\/\/!|\/\/|\/\*)/.test(text));
    expect(headless.map(({ path }) => path)).toEqual([]);
  });

  test("of src are no barrels", () => {
    const barrels = sources.filter(
      ({ path, text }) => /(^|\/)index\.ts$/.test(path) || /^export \* from/m.test(text),
    );
    expect(barrels.map(({ path }) => path)).toEqual([]);
  });

  test("have no default exports", () => {
    expect(findLines([...sources, ...tests], /^export default\b/)).toEqual([]);
  });
});

describe("words", () => {
  // Spelled in parts, so that this file does not find itself.
  const UNFINISHED = new RegExp(`\\b(${["TO" + "DO", "FIX" + "ME", "XX" + "X"].join("|")})\\b`);

  test("nothing is left for later", () => {
    expect(findLines(handWritten, UNFINISHED)).toEqual([]);
  });

  test("only commands write to the console's output", () => {
    const library = sources.filter(
      ({ path }) => folderOf(path) !== "cli" && path !== "src/graph/generate-zig.ts",
    );
    expect(findLines(library, /\bconsole\.(log|info|debug)\(/)).toEqual([]);
  });

  test("no value loses its type, no finding of the compiler is silenced", () => {
    expect(findLines(sources, /\bas any\b|:\s*any\b|<any>|@ts-(ignore|expect-error|nocheck)/)).toEqual([]);
  });

  test("no enum, no namespace", () => {
    expect(findLines(sources, /^(export )?(const )?enum\b|^(export )?namespace\b/)).toEqual([]);
  });

  test("every test runs", () => {
    expect(findLines(tests, /\b(test|it|describe)\.(only|skip|todo)\(/)).toEqual([]);
  });
});
