/** The door before administration: routes of a plugin that uses it answer only those who may administer. */

import { Elysia } from "elysia";
import { requireAdministrator } from "../access.ts";
import type { ServerContext } from "../context.ts";

export function administrators({ apiKeys, cors }: ServerContext) {
  return new Elysia({ name: "administrators", normalize: false }).onTransform(
    { as: "scoped" },
    ({ request, server }) => {
      const address = server?.requestIP(request)?.address;
      requireAdministrator({ request, address }, apiKeys, cors);
    },
  );
}
