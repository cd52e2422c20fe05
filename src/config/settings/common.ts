/** What several rows of the table share: commands, accepted texts, bounds, reasons. */

/** Commands that answer questions of a model over HTTP. */
export const SERVING = ["serve"] as const;

/** Commands that hold conversations with a model. */
export const CHATTING = ["serve", "run"] as const;

/** Commands that load a model. */
export const LOADING = ["serve", "run", "bench"] as const;

/** Commands that compute, with a model or without. */
export const COMPUTING = [...LOADING, "bench-kernels"] as const;

/** Commands that find a model, loaded or not. */
export const FINDING = ["serve", "run", "bench", "tune", "quantize"] as const;

/** Commands that use the cache of the hub. */
export const CACHING = [...FINDING, "doctor", "cache list", "cache delete", "login"] as const;

/** Commands that tell what they do in a log. */
export const LOGGING = [...FINDING, "doctor", "bench-kernels"] as const;

export const TRUTHY = ["1", "true", "yes", "on"] as const;
export const FALSY = ["0", "false", "no", "off"] as const;

export const COUNT_MAX = 2 ** 31 - 1;

/** Reasons why settings have no effect yet. */
export const NO_CUDA = { because: "the CUDA kernels have no such choice" } as const;
export const NO_METAL = { because: "there are no Metal kernels in this build" } as const;
export const NO_NODES = { because: "running on several nodes is not built" } as const;
export const NO_DEVICES = { because: "a model runs on one device" } as const;
export const NO_QUANTISER = { because: "quantising a model is not built", refused: true } as const;
export const NO_ADAPTERS = { because: "adapters are not built", refused: true } as const;
export const NO_AGENTS = { because: "tools that run on the server are not built", refused: true } as const;
export const NO_MEDIA = { because: "models of images and sound are not built" } as const;
export const NO_SPECULATION = { because: "speculative decoding is not built" } as const;
