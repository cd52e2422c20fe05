/** The API document and a page that shows it; both come with the server and need no other machine. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Elysia } from "elysia";
import { apiDocument, type DocumentedRoute, type DocumentOptions } from "./document.ts";

const tags = ["Server"];
/** The page runs its own script and asks this server; nothing else. */
const PAGE_HEADERS = {
  "content-type": "text/html; charset=utf-8",
  "content-security-policy":
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'",
} as const;

/** @param routes all routes of the app, once they are there. */
export function docsRoutes(routes: () => readonly DocumentedRoute[], options: DocumentOptions) {
  let document: string | undefined;
  let page: string | undefined;
  return new Elysia({ name: "docs", normalize: false })
    .get(
      "/api-doc/openapi.json",
      () => {
        document ??= JSON.stringify(apiDocument(routes(), options));
        return new Response(document, { headers: { "content-type": "application/json" } });
      },
      {
        detail: {
          tags,
          summary: "This document",
          responses: {
            200: {
              description: "OpenAPI 3.1.",
              content: { "application/json": { schema: { type: "object" } } },
            },
          },
        },
      },
    )
    .get(
      "/docs",
      () => {
        page ??= readFileSync(join(import.meta.dir, "page.html"), "utf8");
        return new Response(page, { headers: PAGE_HEADERS });
      },
      {
        detail: {
          tags,
          summary: "A page that shows this document",
          responses: {
            200: { description: "HTML.", content: { "text/html": { schema: { type: "string" } } } },
          },
        },
      },
    );
}
