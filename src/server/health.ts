/** Whether the server lives and what its engines do. Answers from memory; waits for nothing. */

import { Elysia, t } from "elysia";
import packageJson from "../../package.json" with { type: "json" };
import type { ServerContext } from "./context.ts";

const EngineState = t.Union([
  t.Literal("starting"),
  t.Literal("ready"),
  t.Literal("draining"),
  t.Literal("failed"),
]);

const Health = t.Object({
  /** "ok": every engine takes requests; "degraded": some do not; "draining": the server shuts down. */
  status: t.Union([t.Literal("ok"), t.Literal("degraded"), t.Literal("draining")]),
  models: t.Array(
    t.Object({ id: t.String(), state: EngineState, running: t.Integer(), waiting: t.Integer() }),
  ),
});

const About = t.Object({ name: t.String(), version: t.String(), models: t.Array(t.String()) });

export function healthRoutes(context: ServerContext) {
  return new Elysia({ name: "health", normalize: false })
    .get("/health", () => healthOf(context), {
      response: Health,
      detail: { tags: ["Server"], summary: "Tell that the server lives" },
    })
    .get(
      "/ready",
      ({ set }) => {
        const health = healthOf(context);
        if (health.status !== "ok") {
          set.status = 503;
          set.headers["retry-after"] = "1";
        }
        return health;
      },
      {
        response: { 200: Health, 503: Health },
        detail: { tags: ["Server"], summary: "Tell whether requests are taken" },
      },
    )
    .get(
      "/",
      () => ({
        name: packageJson.name,
        version: packageJson.version,
        models: context.models.list().map(({ id }) => id),
      }),
      { response: About, detail: { tags: ["Server"], summary: "Tell what answers" } },
    );
}

/** /health answers it with 200: the process lives. /ready answers 503 unless every engine takes requests. */
function healthOf({ models, lifecycle }: ServerContext): typeof Health.static {
  const states = models.list().map(({ id, engine }) => {
    const { running, waiting } = engine.statistics();
    return { id, state: engine.state, running, waiting };
  });
  const ready = states.every(({ state }) => state === "ready");
  return { status: lifecycle.draining ? "draining" : ready ? "ok" : "degraded", models: states };
}
