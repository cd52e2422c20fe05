import { expect, test } from "bun:test";
import { join } from "node:path";
import { Log } from "../../../src/cli/log.ts";
import {
  exposureWarning,
  serverSettings,
  tlsFiles,
  tracingOf,
} from "../../../src/cli/serve/server-settings.ts";
import { PROJECT_ROOT } from "../../../src/cli/setup.ts";
import { type GivenFlag, resolveSettings } from "../../../src/config/resolve.ts";
import type { SettingKey, Settings } from "../../../src/config/settings.ts";
import { startServer } from "../../../src/server/listen.ts";
import { harness } from "../../server/harness.ts";
import { expectMistralError } from "../../support/expect-error.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

const folder = temporaryFolder("server-settings");
const CERTIFICATE = join(PROJECT_ROOT, "test/fixtures/server/localhost.cert.pem");
const KEY = join(PROJECT_ROOT, "test/fixtures/server/localhost.key.pem");

function settings(
  flags: Partial<Record<SettingKey, string>>,
  environment: Record<string, string> = {},
): Settings {
  const given = Object.entries(flags).map(([key, text]): [SettingKey, GivenFlag] => [
    key as SettingKey,
    { name: key, text },
  ]);
  return resolveSettings("serve", { flags: new Map(given), environment }).settings;
}

function logged() {
  const lines: string[] = [];
  return { lines, log: new Log(0, { write: (text) => lines.push(text) }) };
}

test("keys come from flag or variable, and from a file beside them", async () => {
  const apiKeyFile = join(folder, "keys");
  await Bun.write(apiKeyFile, "bob=two\n");
  const { log } = logged();
  const ring = serverSettings(settings({ apiKeys: "alice=one", apiKeyFile }), log).apiKeys;
  expect(["one", "two", "three"].map((key) => ring?.nameOf(key))).toEqual(["alice", "bob", undefined]);
  const variable = serverSettings(settings({}, { MISTRALRS_API_KEY: "one, carol=three" }), log).apiKeys;
  expect(["one", "three"].map((key) => variable?.nameOf(key))).toEqual(["key-1", "carol"]);
  expect(serverSettings(settings({}), log).apiKeys).toBeUndefined();
});

test("a server that strangers reach without a key is told of loudly, no other", () => {
  const warning = (flags: Partial<Record<SettingKey, string>>) => {
    const given = settings(flags);
    return exposureWarning(given, serverSettings(given, logged().log));
  };
  expect(warning({})).toContain("ANYONE");
  expect(warning({})).toContain("--api-key");
  expect(warning({ host: "192.168.1.5" })).toContain("192.168.1.5");
  for (const flags of [{ apiKeys: "k" }, { host: "127.0.0.1" }, { host: "localhost" }, { host: "::1" }])
    expect(warning(flags)).toBeUndefined();
});

test("what else is set arrives", () => {
  const { log, lines } = logged();
  const made = serverSettings(
    settings({
      strict: "1",
      requestTimeoutSeconds: "5",
      corsOrigins: "https://a.example",
      requestIdHeaderDisabled: "1",
    }),
    log,
  );
  expect(made).toMatchObject({ strict: true, requestTimeoutMs: 5_000, requestIdHeader: false });
  expect(made.cors?.allows("https://a.example")).toBe(true);
  made.accessLog?.write("a line");
  expect(lines[0]).toContain("a line");
  expect(serverSettings(settings({ accessLogDisabled: "1" }), log).accessLog).toBeUndefined();
  expectMistralError(
    () => serverSettings(settings({ corsOrigins: "a.example" }), log),
    "invalid_configuration",
    "--cors-origin",
  );
});

test("a certificate and its key make the server speak HTTPS", async () => {
  const tls = tlsFiles(settings({ tlsCertificate: CERTIFICATE, tlsKey: KEY }))!;
  const { models, settings: forServer } = harness();
  const server = startServer({ hostname: "127.0.0.1", port: 0, models, settings: forServer, tls });
  try {
    expect(server.url).toStartWith("https://127.0.0.1:");
    const response = await fetch(`${server.url}/v1/models`, { tls: { ca: tls.certificate } });
    expect(response.status).toBe(200);
    await expect(fetch(`${server.url}/v1/models`)).rejects.toThrow();
  } finally {
    await server.stop(0);
  }
});

test("half of them, or files that are none, are refused", () => {
  expect(tlsFiles(settings({}))).toBeUndefined();
  expectMistralError(
    () => tlsFiles(settings({ tlsCertificate: CERTIFICATE })),
    "invalid_configuration",
    "belong together",
  );
  expectMistralError(() => tlsFiles(settings({ tlsKey: KEY })), "invalid_configuration", "belong together");
  const none = join(folder, "none.pem");
  expectMistralError(
    () => tlsFiles(settings({ tlsCertificate: none, tlsKey: KEY })),
    "invalid_configuration",
    "--tls-cert",
  );
  expectMistralError(
    () => tlsFiles(settings({ tlsCertificate: CERTIFICATE, tlsKey: __filename })),
    "invalid_configuration",
    "no PEM block",
  );
});

test("traces go where they are wanted: a collector is named, and tracing is not disabled", async () => {
  const seen: { readonly url: string; readonly headers: Headers }[] = [];
  const collector = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch({ url, headers }) {
      seen.push({ url, headers });
      return Response.json({});
    },
  });
  try {
    const { log } = logged();
    const endpoint = `http://127.0.0.1:${collector.port}/`;
    const environment = {
      OTEL_EXPORTER_OTLP_ENDPOINT: endpoint,
      OTEL_EXPORTER_OTLP_HEADERS: "x-key=a%20b,y=z",
    };
    expect(await tracingOf(settings({}), log)).toBeUndefined();
    expect(await tracingOf(settings({}, { ...environment, OTEL_SDK_DISABLED: "true" }), log)).toBeUndefined();
    const tracing = await tracingOf(settings({}, environment), log);
    const { app } = harness({ settings: { ...(tracing === undefined ? {} : { tracing: tracing.watcher }) } });
    await (await app.handle(new Request("http://localhost/v1/models"))).text();
    await Bun.sleep(20);
    await tracing?.close();
    expect(seen.map(({ url }) => url)).toEqual([`${endpoint}v1/traces`]);
    expect(["x-key", "y"].map((name) => seen[0]?.headers.get(name))).toEqual(["a b", "z"]);
    const wrong = tracingOf(settings({}, { ...environment, OTEL_EXPORTER_OTLP_HEADERS: "secret" }), log);
    expect(await wrong.catch((error: Error) => error.message)).toBe(
      "OTEL_EXPORTER_OTLP_HEADERS: entry 1 is not name=value",
    );
  } finally {
    await collector.stop(true);
  }
});
