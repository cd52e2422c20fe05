/**
 * Installs the packages of bun.lock when node_modules is missing or belongs to another lockfile. A stamp file
 * remembers which lockfile was installed, so a second start only hashes two small files.
 */

import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MistralError } from "../../errors.ts";
import { formatByteRate, formatBytes } from "../units.ts";
import { type SetupOutput, SetupStep } from "./report.ts";
import { runTool } from "./tool.ts";

const STAMP = ".setup-stamp";

/** What must be installed, as one short string: lockfile, manifest and platform (binaries differ by platform). */
function wantedStamp(root: string): string {
  const hash = new Bun.CryptoHasher("sha256");
  for (const file of ["bun.lock", "package.json"]) hash.update(readFileSync(join(root, file)));
  return `${process.platform}-${process.arch} ${hash.digest("hex")}\n`;
}

/** Whether the installed packages are those of the lockfile. */
export function dependenciesCurrent(root: string): boolean {
  try {
    return readFileSync(join(root, "node_modules", STAMP), "utf8") === wantedStamp(root);
  } catch {
    return false;
  }
}

/** Installs exactly what bun.lock says. Throws MistralError("network") with what to do when it cannot. */
export async function installDependencies(root: string, output: SetupOutput): Promise<void> {
  const modules = join(root, "node_modules");
  const step = new SetupStep(output, "dependencies", "installing the packages of bun.lock", () => {
    return `${countPackages(modules)} packages in place`;
  });
  const command = [process.execPath, "install", "--frozen-lockfile", "--no-progress"];
  const { status, stdout, stderr } = await runTool(command, root);
  if (status !== 0) {
    step.fail("installation failed");
    throw new MistralError("network", installationFailure(`${stderr}\n${stdout}`, status));
  }
  const seconds = step.elapsedSeconds;
  const bytes = folderBytes(modules);
  const rate = /\(no changes\)/.test(stdout) ? "already in place" : `at ${formatByteRate(bytes, seconds)}`;
  step.done(`${countPackages(modules)} packages, ${formatBytes(bytes)} ${rate}`, seconds);
  mkdirSync(modules, { recursive: true });
  writeFileSync(join(modules, STAMP), wantedStamp(root));
}

/** The last lines of the installer and what a person can do about them. */
function installationFailure(log: string, status: number): string {
  const lines = log.split("\n").filter((line) => line.trim() !== "");
  const reason = lines.slice(-8).join("\n  ");
  const advice = /lockfile had changes|frozen/i.test(log)
    ? "package.json and bun.lock do not belong together: restore both from git, or run `bun install` after changing package.json."
    : "Check that this machine reaches the npm registry (HTTPS_PROXY behind a proxy, NPM_CONFIG_REGISTRY or .npmrc for a mirror) and that the disk has 1 GB free, then run the command again; what was downloaded is kept.";
  return `the packages could not be installed: \`bun install --frozen-lockfile\` ended with status ${status}:\n  ${reason}\n${advice}`;
}

function countPackages(modules: string): number {
  if (!existsSync(modules)) return 0;
  let count = 0;
  for (const name of readdirSync(modules)) {
    if (name.startsWith(".")) continue;
    count += name.startsWith("@") ? readdirSync(join(modules, name)).length : 1;
  }
  return count;
}

function folderBytes(folder: string): number {
  let bytes = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) bytes += folderBytes(path);
    else if (entry.isFile()) bytes += statSync(path).size;
  }
  return bytes;
}
