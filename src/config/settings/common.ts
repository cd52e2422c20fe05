/** What several rows of the table share: commands, accepted texts, bounds. */

/** Commands that answer questions of a model over HTTP. */
export const SERVING = ["serve"] as const;

/** Commands that load a model. */
export const LOADING = ["serve", "bench"] as const;

export const TRUTHY = ["1", "true", "yes", "on"] as const;

export const COUNT_MAX = 2 ** 31 - 1;
