/** The server's settings out of those of the command line: keys, origins, certificate, log. */

import { readFileSync } from "node:fs";
import type { Settings } from "../../config/settings.ts";
import { MistralError } from "../../errors.ts";
import { isPublicHost } from "../../server/access.ts";
import type { AccessLogSettings } from "../../server/access-log.ts";
import { KeyRing, readKeyFile } from "../../server/api-keys.ts";
import type { ServerSettings } from "../../server/context.ts";
import { CorsPolicy } from "../../server/cors.ts";
import type { TlsFiles } from "../../server/listen.ts";
import type { Tracing } from "../../server/tracing.ts";
import type { Log } from "../log.ts";
import { requestLogFile } from "../request-log-file.ts";

/** Throws invalid_configuration for keys and origins that cannot be. */
export function serverSettings(settings: Settings, log: Log): ServerSettings {
  const keys = [
    ...(settings.apiKeys ?? []),
    ...(settings.apiKeyFile === undefined ? [] : readKeyFile(settings.apiKeyFile)),
  ];
  return {
    keepAliveIntervalMs: settings.keepAliveIntervalMs,
    requestTimeoutMs: settings.requestTimeoutSeconds * 1000,
    strict: settings.strict,
    metrics: !settings.metricsDisabled,
    requestIdHeader: !settings.requestIdHeaderDisabled,
    cors: new CorsPolicy(settings.corsOrigins ?? []),
    ...(keys.length === 0 ? {} : { apiKeys: new KeyRing(keys) }),
    ...(settings.accessLogDisabled ? {} : { accessLog: accessLogSettings(settings, log) }),
    ...(settings.requestLog === undefined ? {} : { requestLog: requestLogFile(settings.requestLog) }),
    log: (level, message, cause) => log.write(level, message, cause),
  };
}

/** Begins to trace when a collector is named; only then is the library for it loaded. */
export async function tracingOf(settings: Settings, log: Log): Promise<Tracing | undefined> {
  const { otlpEndpoint: endpoint, otelServiceName: serviceName, otelDisabled } = settings;
  if (endpoint === undefined || otelDisabled) return undefined;
  const headers = headersOf(settings.otlpHeaders ?? []);
  const { openTracing } = await import("../../server/tracing.ts");
  return openTracing({ endpoint, serviceName, headers, warn: (message) => log.write("warning", message) });
}

/** `name=value`, the value percent-encoded, as the variable's standard has it. Throws invalid_configuration. */
function headersOf(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    pairs.map((pair, index) => {
      const [, name, value] = /^\s*([!#$%&'*+.^`|~\w-]+)\s*=\s*(.*?)\s*$/.exec(pair) ?? [];
      if (name === undefined || value === undefined) {
        throw new MistralError(
          "invalid_configuration",
          // The value may be a key, so that nothing of it is shown.
          `OTEL_EXPORTER_OTLP_HEADERS: entry ${index + 1} is not name=value`,
          { parameter: "OTEL_EXPORTER_OTLP_HEADERS" },
        );
      }
      return [name, /%(?![\da-f]{2})/i.test(value) ? value : decodeURIComponent(value)];
    }),
  );
}

/** JSON lines are for programs and go to stdout alone; text joins the log. */
function accessLogSettings(settings: Settings, log: Log): AccessLogSettings {
  const { accessLogFormat: format, accessLogHealth: health, accessLogPrompts: prompts } = settings;
  const write =
    format === "json"
      ? (line: string) => void process.stdout.write(`${line}\n`)
      : (line: string) => log.write("info", line);
  return { format, health, prompts, write };
}

/** The certificate and its key, read now; undefined for plain HTTP. Throws invalid_configuration. */
export function tlsFiles({ tlsCertificate, tlsKey }: Settings): TlsFiles | undefined {
  if (tlsCertificate === undefined && tlsKey === undefined) return undefined;
  if (tlsCertificate === undefined || tlsKey === undefined) {
    throw new MistralError(
      "invalid_configuration",
      "--tls-cert and --tls-key belong together: HTTPS needs a certificate and its private key",
      { parameter: tlsKey === undefined ? "--tls-key" : "--tls-cert" },
    );
  }
  return { certificate: readPem(tlsCertificate, "--tls-cert"), key: readPem(tlsKey, "--tls-key") };
}

function readPem(path: string, flag: string): string {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (cause) {
    throw new MistralError("invalid_configuration", `${flag}: ${(cause as Error).message}`, {
      parameter: flag,
      cause,
    });
  }
  if (!text.includes("-----BEGIN ")) {
    throw new MistralError("invalid_configuration", `${flag}: ${path} holds no PEM block`, {
      parameter: flag,
    });
  }
  return text;
}

/** What must be said loudly of a server that strangers can reach; undefined when nothing must. */
export function exposureWarning(settings: Settings, server: ServerSettings): string | undefined {
  if (server.apiKeys !== undefined || !isPublicHost(settings.host)) return undefined;
  return `ANYONE who can reach ${settings.host} may use this server: it has no API key. Give it one with --api-key or MISTRALRS_API_KEY, or listen on this machine alone with --host 127.0.0.1. Until then it is administered from this machine only`;
}
