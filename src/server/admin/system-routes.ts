/** What the machine is and how it does, for the administrator. */

import { Elysia } from "elysia";
import type { ServerContext } from "../context.ts";
import { ERROR_RESPONSES } from "../openai/errors.ts";
import { administrators } from "./administrators.ts";
import { DoctorReport, examine } from "./doctor.ts";
import { SystemInfo, systemInfo } from "./system-info.ts";

const tags = ["Administration"];

export function systemRoutes(context: ServerContext) {
  return new Elysia({ name: "system", normalize: false })
    .use(administrators(context))
    .get("/v1/system/info", () => systemInfo(process.env), {
      response: { 200: SystemInfo, ...ERROR_RESPONSES },
      detail: { tags, summary: "Describe the machine and the build" },
    })
    .post(
      "/v1/system/doctor",
      () => examine({ environment: process.env, models: context.models.entries() }),
      {
        response: { 200: DoctorReport, ...ERROR_RESPONSES },
        detail: { tags, summary: "Look for what commonly goes wrong" },
      },
    );
}
