/** The Hugging Face variables as the settings decided them: flags and configuration files stand above the process's. */

import { readFileSync } from "node:fs";
import { devNull } from "node:os";
import type { Settings } from "../config/settings.ts";
import type { Environment } from "../weights/cache-paths.ts";

/** What finding and fetching models is told. `note` takes what a person should know about the token. */
export function hubEnvironment(settings: Settings, note: (message: string) => void = () => {}): Environment {
  const { hubCache, hubHome, hubEndpoint, hubOffline } = settings;
  return {
    ...process.env,
    ...(hubCache === undefined ? {} : { HF_HUB_CACHE: hubCache }),
    ...(hubHome === undefined ? {} : { HF_HOME: hubHome }),
    ...(hubEndpoint === undefined ? {} : { HF_ENDPOINT: hubEndpoint }),
    HF_HUB_OFFLINE: hubOffline ? "1" : "0",
    ...tokenVariables(settings.hubTokenSource, note),
  };
}

/** Nothing for `cache`, which is how the token is found anyway; otherwise exactly this token or none. */
function tokenVariables(source: string, note: (message: string) => void): Environment {
  const colon = source.indexOf(":");
  const [kind, rest] = colon < 0 ? [source, ""] : [source.slice(0, colon), source.slice(colon + 1)];
  switch (kind) {
    case "literal":
      return onlyToken(rest);
    case "env":
      return onlyToken(process.env[rest] || missing(`the variable ${rest} is not set`, note));
    case "path":
      return onlyToken(readToken(rest) ?? missing(`${rest} cannot be read`, note));
    case "none":
      return onlyToken(undefined);
    default:
      return {};
  }
}

function missing(problem: string, note: (message: string) => void): undefined {
  note(`--token-source: ${problem}; no token is used`);
}

function readToken(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

function onlyToken(token: string | undefined): Environment {
  return { HF_TOKEN: token, HF_HUB_TOKEN: undefined, HF_TOKEN_PATH: devNull };
}
