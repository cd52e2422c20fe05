import { describe, expect, test } from "bun:test";
import { isLoopbackAddress, isPublicHost } from "../../src/server/access.ts";
import { KeyRing } from "../../src/server/api-keys.ts";
import type { App } from "../../src/server/app.ts";
import { CorsPolicy } from "../../src/server/cors.ts";
import { expectMistralError } from "../support/expect-error.ts";
import { COMPLETIONS, errorOf, get, harness, post, withServer } from "./harness.ts";

const apiKeys = () => new KeyRing(["alice=sk-alice", "sk-bob"]);

interface Route {
  readonly method: string;
  readonly path: string;
}

/** Every route there is, with something in the place of its parameters, and one that is not there. */
function everyRoute(app: App): Route[] {
  const routes = (app.routes as readonly Route[]).map(({ method, path }) => ({
    method,
    path: path.replace(/:\w+|\*/g, "x"),
  }));
  return [...routes, { method: "GET", path: "/no/such/route" }, { method: "DELETE", path: "/health/x" }];
}

const call = (app: App, { method, path }: Route, headers: Record<string, string>) =>
  app.handle(
    new Request(`http://localhost${path}`, { method, headers, ...(method === "POST" ? { body: "{}" } : {}) }),
  );

describe("with API keys", () => {
  const { app } = harness({ settings: { apiKeys: apiKeys() } });
  const routes = everyRoute(app);

  test("there are as many routes as are meant to be tried", () => {
    expect(routes.length).toBeGreaterThan(20);
  });

  for (const route of routes) {
    const name = `${route.method} ${route.path}`;
    if (route.path === "/health") {
      test(`${name} is open`, async () => {
        for (const headers of [{}, { authorization: "Bearer wrong" }]) {
          expect((await call(app, route, headers)).status).toBe(200);
        }
      });
      continue;
    }
    test(`${name} asks for one`, async () => {
      for (const headers of [
        {},
        { authorization: "Bearer wrong" },
        { authorization: "Bearer sk-alice2" },
        { authorization: "sk-alice" },
        { "x-api-key": "" },
        { "x-api-key": "alice" },
      ]) {
        const response = await call(app, route, headers);
        expect(response.status).toBe(401);
        expect(response.headers.get("www-authenticate")).toContain("Bearer");
        const { error } = (await response.json()) as { error: { type: string } };
        expect(error.type).toBe(
          route.path.startsWith("/v1/messages") ? "authentication_error" : "invalid_request_error",
        );
      }
      for (const headers of [
        { authorization: "Bearer sk-alice" },
        { authorization: "bearer sk-bob" },
        { "x-api-key": "sk-bob" },
        { authorization: "Bearer none", "x-api-key": "sk-alice" },
      ]) {
        expect((await call(app, route, headers)).status).not.toBe(401);
      }
    });
  }

  test("a browser asks its user, and the password is the key", async () => {
    const page = await get(app, "/docs", { headers: { accept: "text/html,*/*" } });
    expect(page.headers.get("www-authenticate")).toStartWith("Basic");
    const headers = { authorization: `Basic ${btoa("anybody:sk-bob")}` };
    expect((await get(app, "/docs", { headers })).status).toBe(200);
  });

  test("holders may administer from anywhere, through proxies too", async () => {
    const headers = { "x-api-key": "sk-bob", "x-forwarded-for": "203.0.113.7" };
    expect((await get(app, "/v1/system/info", { headers })).status).toBe(200);
  });
});

describe("administration without keys", () => {
  const ROUTES = ["/v1/models/load", "/v1/models/unload", "/v1/models/reload", "/v1/system/doctor"];
  const body = { model_id: "x" };

  test("is refused to who comes through a proxy", async () => {
    for (const path of ROUTES) {
      for (const header of ["x-forwarded-for", "forwarded", "x-real-ip"]) {
        const response = await post(harness().app, path, body, { headers: { [header]: "127.0.0.1" } });
        expect(await errorOf(response)).toMatchObject({ status: 403, error: { code: "forbidden" } });
      }
    }
  });

  test("is refused to pages of others, and granted to pages of this machine", async () => {
    for (const path of ROUTES) {
      for (const origin of [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://10.0.0.1:80",
      ]) {
        expect((await post(harness().app, path, body, { headers: { origin } })).status).toBe(403);
      }
      for (const origin of ["http://localhost:3000", "http://127.0.0.1:1234", "http://[::1]:8080"]) {
        expect((await post(harness().app, path, body, { headers: { origin } })).status).not.toBe(403);
      }
    }
  });

  test("is refused to another machine's address", async () => {
    const { app } = harness();
    for (const [address, status] of [
      ["203.0.113.7", 403],
      ["127.0.0.1", 200],
    ] as const) {
      // The connection's address is the one thing that only a listening server has.
      const fake = { requestIP: () => ({ address }), timeout: () => {} };
      const original = app.server;
      app.server = fake as unknown as NonNullable<typeof original>;
      expect((await get(app, "/v1/system/info")).status).toBe(status);
      app.server = original;
    }
  });

  test("is granted to a program on this machine", async () => {
    await withServer({}, async ({ url }) => {
      expect((await fetch(`${url}/v1/system/info`)).status).toBe(200);
    });
  });

  test("leaves the rest open", async () => {
    const headers = { "x-forwarded-for": "203.0.113.7" };
    expect(
      (await post(harness().app, "/v1/models/status", { model_id: "default" }, { headers })).status,
    ).toBe(200);
    expect((await post(harness().app, COMPLETIONS, { prompt: "Hi" }, { headers })).status).toBe(200);
  });
});

test("addresses of this machine are known as such, and no others", () => {
  for (const address of ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "::FFFF:127.0.0.1"])
    expect(isLoopbackAddress(address), address).toBe(true);
  for (const address of [
    "10.0.0.1",
    "::ffff:10.0.0.1",
    "::",
    "0.0.0.0",
    "127.0.0.1.evil.example",
    "fe80::1",
    "",
  ])
    expect(isLoopbackAddress(address), address).toBe(false);
  expect(["localhost", "127.0.0.1", "::1"].map(isPublicHost)).toEqual([false, false, false]);
  expect(["0.0.0.0", "::", "192.168.1.2", "chat.example"].map(isPublicHost)).toEqual([
    true,
    true,
    true,
    true,
  ]);
});

describe("pages of other origins", () => {
  const ask = (app: App, origin: string) =>
    app.handle(
      new Request(`http://localhost${COMPLETIONS}`, {
        method: "OPTIONS",
        headers: {
          origin,
          "access-control-request-method": "POST",
          "access-control-request-headers": "authorization, x-stainless-lang",
        },
      }),
    );
  const use = (app: App, origin: string) => post(app, COMPLETIONS, { prompt: "Hi" }, { headers: { origin } });
  const allowed = (response: Response) => response.headers.get("access-control-allow-origin");

  test("may not read answers unless they are named", async () => {
    const { app } = harness();
    expect(allowed(await use(app, "https://chat.example"))).toBeNull();
    expect(allowed(await ask(app, "https://chat.example"))).toBeNull();
    expect((await ask(app, "https://chat.example")).status).toBe(405);
  });

  test("that are named may, with keys as without, and errors too", async () => {
    const cors = new CorsPolicy(["https://chat.example"]);
    for (const settings of [{ cors }, { cors, apiKeys: apiKeys() }]) {
      const { app } = harness({ settings });
      const preflight = await ask(app, "https://chat.example");
      expect(preflight.status).toBe(204);
      expect(allowed(preflight)).toBe("https://chat.example");
      expect(preflight.headers.get("access-control-allow-headers")).toBe("authorization, x-stainless-lang");
      expect(preflight.headers.get("access-control-allow-methods")).toContain("POST");
      const answer = await use(app, "https://chat.example");
      expect(allowed(answer)).toBe("https://chat.example");
      expect(answer.headers.get("access-control-expose-headers")).toContain("x-request-id");
      for (const stranger of ["https://chat.example.evil", "http://chat.example", "null"]) {
        expect(allowed(await use(app, stranger))).toBeNull();
        expect(allowed(await ask(app, stranger))).toBeNull();
      }
    }
  });

  test("may all, with a star, also on a stream", async () => {
    const { app } = harness({ settings: { cors: new CorsPolicy(["*"]) } });
    const headers = { origin: "https://any.example" };
    const response = await post(app, COMPLETIONS, { prompt: "Hi", stream: true }, { headers });
    expect(allowed(response)).toBe("https://any.example");
    await response.text();
  });

  test("must be named as origins", () => {
    for (const origin of ["chat.example", "https://chat.example/", "https://chat.example/path", ""])
      expectMistralError(() => new CorsPolicy([origin]), "invalid_configuration", "no origin");
  });
});

describe("the id of a request", () => {
  test("is made, or taken from the request when it is fit to be repeated", async () => {
    const { app } = harness();
    const id = async (given?: string) =>
      (
        await get(app, "/health", given === undefined ? {} : { headers: { "x-request-id": given } })
      ).headers.get("x-request-id");
    expect(await id()).toMatch(/^req_[0-9a-f]{32}$/);
    expect(await id("trace-7")).toBe("trace-7");
    for (const unfit of ["has space", "x".repeat(201)]) expect(await id(unfit)).toMatch(/^req_[0-9a-f]{32}$/);
    expect(await id()).not.toBe(await id());
  });

  test("is on errors, refusals and streams too, unless it is switched off", async () => {
    const { app } = harness({ settings: { apiKeys: apiKeys() } });
    const headers = { authorization: "Bearer sk-bob" };
    for (const response of [
      await get(app, "/ready"),
      await get(app, "/nope", { headers }),
      await post(app, COMPLETIONS, { prompt: 3 }, { headers }),
      await post(app, COMPLETIONS, { prompt: "Hi", stream: true }, { headers }),
    ]) {
      expect(response.headers.get("x-request-id")).toStartWith("req_");
      await response.text();
    }
    const silent = harness({ settings: { requestIdHeader: false } });
    expect((await get(silent.app, "/health")).headers.get("x-request-id")).toBeNull();
  });
});
