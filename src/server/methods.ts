/** Tells an unknown path from a wrong method on a known one, from the routes that exist. */

export interface RouteShape {
  readonly method: string;
  readonly path: string;
}

/** The methods this path answers, in order; empty when no route has it. */
export function allowedMethods(routes: readonly RouteShape[], path: string): readonly string[] {
  const methods = new Set<string>();
  // A path of its own is not what a pattern means that it happens to fit: /v1/models/load is no model.
  const own = routes.filter((route) => route.path === path);
  for (const route of own.length > 0 ? own : routes) {
    if (!matches(route.path, path)) continue;
    methods.add(route.method);
    if (route.method === "GET") methods.add("HEAD");
  }
  return [...methods].sort();
}

function matches(pattern: string, path: string): boolean {
  const expected = pattern.split("/");
  const actual = path.split("/");
  for (const [index, segment] of expected.entries()) {
    if (segment === "*") return actual.length > index && actual[index] !== "";
    if (segment.startsWith(":") ? !actual[index] : segment !== actual[index]) return false;
  }
  return expected.length === actual.length;
}
