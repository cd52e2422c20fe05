/** Completions as shells give them: each script is loaded by its shell, which is then asked. */

import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { SHELLS } from "../../src/cli/commands.ts";
import { completionScript } from "../../src/cli/completions.ts";
import { settingEntries } from "../../src/config/settings.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { childEnvironment, runCommand } from "./processes.ts";
import { TerminalProcess } from "./run/terminal.ts";

const folder = temporaryFolder("completions");

async function shell(command: readonly string[], environment: Record<string, string> = {}): Promise<string> {
  const child = Bun.spawn([...command], {
    env: childEnvironment(environment),
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

/** The name of a test that a shell runs: it says so where the shell is not there and the test is skipped. */
function needs(shellName: string, what: string): [name: string, runs: typeof test] {
  const isHere = Bun.which(shellName) !== null;
  if (!isHere) console.warn(`completions: ${shellName} is not installed here, so its script was not loaded`);
  return isHere
    ? [what, test]
    : [`${what} (SKIPPED: ${shellName} is not installed)`, test.skip as typeof test];
}

function check(name: string, ask: Ask): void {
  const [title, run] = needs(name, name);
  describe(title, () => {
    run("offers commands, and what belongs to them", async () => {
      expect(await ask("ser")).toEqual(["serve"]);
      expect(await ask("config", "")).toEqual(["explain"]);
      expect([...(await ask("cache", ""))].sort()).toEqual(["delete", "list"]);
      expect([...(await ask("completions", ""))].sort()).toEqual([
        "bash",
        "elvish",
        "fish",
        "powershell",
        "zsh",
      ]);
    });

    run("offers the flags of the command that was typed, and their values", async () => {
      expect(await ask("serve", "--por")).toEqual(["--port"]);
      expect(await ask("bench", "--por")).toEqual([]);
      expect(await ask("cache", "list", "--js")).toEqual(["--json"]);
      expect([...(await ask("serve", "--pa-block-size", ""))].sort()).toEqual(["16", "32", "8"]);
      expect(await ask("tune", "--profile", "ba")).toEqual(["balanced"]);
    });
  });
}

check("bash", bash);
check("fish", fish);

{
  const [title, run] = needs("zsh", "zsh loads the script and finds its function for the program");
  run(title, async () => {
    const script = join(folder, "_mistral");
    writeFileSync(script, completionScript("zsh"));
    const ask = `autoload -U compinit; compinit -u -D; source ${script}; whence -w _mistral; print $_comps[mistral]`;
    const shown = await shell(["zsh", "-f", "-c", ask], { HOME: folder });
    expect(shown).toBe("_mistral: function\n_mistral\n");
  });

  run(
    "zsh completes a command, its flag and the flag's value at the tab key",
    async () => {
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
    },
    60_000,
  );
}

{
  const [title, run] = needs(
    "elvish",
    "elvish completes a command, its flags and a flag's value at the tab key",
  );
  run(
    title,
    async () => {
      const script = join(folder, "rc.elv");
      writeFileSync(
        script,
        `${completionScript("elvish")}\nset edit:prompt = { put 'ready> ' }\nset edit:rprompt = { }\n`,
      );
      const environment = { HOME: folder, XDG_STATE_HOME: folder, XDG_DATA_HOME: folder };
      const terminal = new TerminalProcess(["elvish", "-rc", script], environment);
      try {
        await terminal.until("ready> ");
        terminal.press("mistral comp\t");
        // It writes only what is new, and a space behind it.
        await terminal.until("letions");
        terminal.press("po\t");
        await terminal.until("wershell");
        terminal.press("\x15mistral serve --pa-cache-ty\t");
        await terminal.until("pe");
        terminal.press("f8\t");
        await terminal.until("e4m3");
      } finally {
        terminal.kill();
        await terminal.exited();
      }
    },
    60_000,
  );
}

test("PowerShell's tables have no two keys that it takes for one", () => {
  const script = completionScript("powershell");
  for (const [, body = ""] of script.matchAll(/@\{\n(.*?)\n {2}\}/gs)) {
    const keys = [...body.matchAll(/^ {4}'(.*?)' = /gm)].map(([, key = ""]) => key.toLowerCase());
    expect(keys.length).toBeGreaterThan(2);
    expect(new Set(keys).size).toBe(keys.length);
  }
});

{
  const [title, run] = needs("pwsh", "PowerShell completes a command and its flag");
  run(
    title,
    async () => {
      const script = join(folder, "mistral.ps1");
      writeFileSync(script, completionScript("powershell"));
      const ask = async (line: string): Promise<string[]> => {
        const question = `. ${script}; (TabExpansion2 '${line}' ${line.length}).CompletionMatches.CompletionText`;
        return (await shell(["pwsh", "-NoProfile", "-Command", question])).trim().split("\n");
      };
      expect(await ask("mistral ser")).toEqual(["serve"]);
      expect(await ask("mistral cache l")).toEqual(["list"]);
      expect(await ask("mistral serve --pa-block-size 3")).toEqual(["32"]);
    },
    60_000,
  );
}

test("every script has every flag of every command", () => {
  for (const name of SHELLS) {
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
  expect(refused.stderr).toBe(
    'error: argument shell has the value "tcsh"; allowed: one of bash, zsh, fish, elvish, powershell\n',
  );
  expect((await runCommand(["completions"])).stderr).toBe(
    "error: completions needs its argument shell: one of bash, zsh, fish, elvish, powershell\n",
  );
});
