/** `login`: saves an access token of the hub where this program and the Python client look for it. */

import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline/promises";
import { Writable } from "node:stream";
import type { Resolution } from "../config/resolve.ts";
import { MistralError } from "../errors.ts";
import { huggingFaceHome } from "../weights/cache-paths.ts";
import { hubEnvironment } from "./hub-environment.ts";

const OWNER_ONLY = 0o600;

/** Takes the token of `--token`, else asks for it. Throws MistralError when it is none. */
export async function login({ settings }: Resolution): Promise<void> {
  const token = settings.newToken ?? (await askForToken());
  if (token === "") {
    throw new MistralError(
      "invalid_configuration",
      "no token was given; type it in, or give it with --token",
      {
        parameter: "--token",
      },
    );
  }
  if (!/^hf_\S+$/.test(token)) {
    throw new MistralError("invalid_configuration", "this is no access token: it must begin with hf_", {
      parameter: "--token",
    });
  }
  const path = settings.hubTokenPath ?? join(huggingFaceHome(hubEnvironment(settings)), "token");
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, token, { mode: OWNER_ONLY });
  // A file that was there keeps its old mode otherwise.
  chmodSync(path, OWNER_ONLY);
  process.stdout.write(`✅ token saved in ${path}\n`);
}

/** One line from the terminal, which does not show it; from a pipe, its first line. */
async function askForToken(): Promise<string> {
  const isTerminal = process.stdin.isTTY === true;
  if (isTerminal)
    process.stderr.write("Access token (from https://huggingface.co/settings/tokens, not shown): ");
  const silence = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: process.stdin, output: silence, terminal: isTerminal });
  try {
    for await (const line of lines) return line.trim();
    return "";
  } finally {
    lines.close();
    if (isTerminal) process.stderr.write("\n");
  }
}
