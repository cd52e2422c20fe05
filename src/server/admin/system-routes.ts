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
    .get(
      "/v1/system/info",
      () => {
        const settings = context.describeSettings?.();
        const system = systemInfo(process.env);
        return settings === undefined ? system : { ...system, settings: [...settings] };
      },
      {
        response: { 200: SystemInfo, ...ERROR_RESPONSES },
        detail: { tags, summary: "Describe the machine, the build and the configuration in force" },
      },
    )
    .post(
      "/v1/system/doctor",
      () => examine({ environment: process.env, models: context.models.entries() }),
      {
        response: { 200: DoctorReport, ...ERROR_RESPONSES },
        detail: { tags, summary: "Look for what commonly goes wrong" },
      },
    );
}
