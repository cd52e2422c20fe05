/** Completions as shells give them: each script is loaded by its shell, which is then asked. */

import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { completionScript } from "../../src/cli/completions.ts";
import { settingEntries } from "../../src/config/settings.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { runCommand } from "./processes.ts";
import { TerminalProcess } from "./run/terminal.ts";

const folder = temporaryFolder("completions");

async function shell(command: readonly string[], environment: Record<string, string> = {}): Promise<string> {
  const child = Bun.spawn([...command], {
    env: { ...process.env, ...environment },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return stdout;
}

/** What the shell offers for these words, the last of which is being typed. */
type Ask = (...words: string[]) => Promise<readonly string[]>;

const bash: Ask = async (...words) => {
  const script = join(folder, "mistral.bash");
  writeFileSync(script, completionScript("bash"));
  const quoted = ["mistral", ...words].map((word) => `'${word}'`).join(" ");
  const ask = `source ${script}; COMP_WORDS=(${quoted}); COMP_CWORD=${words.length}; _mistral; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const bare = ["bash", "--noprofile", "--norc", "-c"];
  return (await shell([...bare, ask])).split("\n").filter((line) => line !== "");
};

const fish: Ask = async (...words) => {
  const script = join(folder, "mistral.fish");
  writeFileSync(script, completionScript("fish"));
  const line = ["mistral", ...words].join(" ");
  const offered = await shell(["fish", "--no-config", "-c", `source ${script}; complete -C '${line}'`], {
    HOME: folder,
  });
  return offered.split("\n").flatMap((row) => row.split("\t")[0] || []);
};

function check(name: string, ask: Ask): void {
  describe(name, () => {
    test("offers commands, and what belongs to them", async () => {
      expect(await ask("ser")).toEqual(["serve"]);
      expect(await ask("config", "")).toEqual(["explain"]);
      expect([...(await ask("cache", ""))].sort()).toEqual(["delete", "list"]);
      expect([...(await ask("completions", ""))].sort()).toEqual(["bash", "fish", "zsh"]);
    });

    test("offers the flags of the command that was typed, and their values", async () => {
      expect(await ask("serve", "--por")).toEqual(["--port"]);
      expect(await ask("bench", "--por")).toEqual([]);
      expect(await ask("cache", "list", "--js")).toEqual(["--json"]);
      expect([...(await ask("serve", "--pa-block-size", ""))].sort()).toEqual(["16", "32", "8"]);
      expect(await ask("tune", "--profile", "ba")).toEqual(["balanced"]);
    });
  });
}

check("bash", bash);
if (Bun.which("fish") !== null) check("fish", fish);

if (Bun.which("zsh") !== null) {
  test("zsh loads the script and finds its function for the program", async () => {
    const script = join(folder, "_mistral");
    writeFileSync(script, completionScript("zsh"));
    const ask = `autoload -U compinit; compinit -u -D; source ${script}; whence -w _mistral; print $_comps[mistral]`;
    const shown = await shell(["zsh", "-f", "-c", ask], { HOME: folder });
    expect(shown).toBe("_mistral: function\n_mistral\n");
  });

  test("zsh completes a command, its flag and the flag's value at the tab key", async () => {
    const script = join(folder, "_mistral");
    writeFileSync(script, completionScript("zsh"));
    writeFileSync(
      join(folder, ".zshrc"),
      `PROMPT='ready> '; unsetopt zle_bracketed_paste 2>/dev/null; autoload -U compinit; compinit -u -D; source ${script}\n`,
    );
    const terminal = new TerminalProcess(["zsh", "-i"], { HOME: folder, ZDOTDIR: folder });
    try {
      await terminal.until("ready> ");
      terminal.press("mistral ser\t");
      await terminal.until("serve");
      terminal.press("--pa-block\t");
      await terminal.until("--pa-block-size");
      terminal.press("3\t");
      await terminal.until("32");
    } finally {
      terminal.kill();
      await terminal.exited();
    }
  }, 60_000);
}

test("every script has every flag of every command", () => {
  for (const name of ["bash", "zsh", "fish"] as const) {
    const script = completionScript(name);
    for (const [, { flag, commands }] of settingEntries()) {
      if (flag === undefined || commands.every((command) => command === "build")) continue;
      const shown = name === "fish" ? `-l ${flag.slice(2)} ` : flag;
      expect({ name, flag, has: script.includes(shown) }).toEqual({ name, flag, has: true });
    }
  }
});

test("the command prints the script; another shell is refused with the known ones", async () => {
  const { status, stdout } = await runCommand(["completions", "fish"]);
  expect({ status, same: stdout === completionScript("fish") }).toEqual({ status: 0, same: true });
  const refused = await runCommand(["completions", "tcsh"]);
  expect(refused.status).toBe(2);
  expect(refused.stderr).toContain("Allowed choices are bash, zsh, fish");
});
