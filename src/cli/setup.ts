/**
 * Makes a checkout ready to run: packages installed, kernels built. Does nothing when both are current, which
 * takes a few milliseconds to find out. Imports only Bun's own modules, because it runs before any package is
 * there.
 */

import { dirname, join } from "node:path";
import { dependenciesCurrent, installDependencies } from "./setup/dependencies.ts";
import { buildKernels, type KernelSet, kernelsCurrent } from "./setup/kernels.ts";
import { withLock } from "./setup/lock.ts";
import type { SetupOutput } from "./setup/report.ts";

/** The folder that holds package.json. */
export const PROJECT_ROOT = dirname(dirname(import.meta.dir));

export interface SetupResult {
  /** Packages were installed: this process resolved modules before they were there and must not import them. */
  readonly installed: boolean;
  readonly built: boolean;
}

/**
 * Installs and builds what is missing or stale, one process at a time. Throws MistralError when a step fails,
 * with what to do about it. Tells on `given`, or on standard error.
 */
export async function setup(
  kernels: KernelSet,
  given?: SetupOutput,
  root: string = PROJECT_ROOT,
): Promise<SetupResult> {
  if (dependenciesCurrent(root) && kernelsCurrent(root, kernels)) return { installed: false, built: false };
  // Not before: the stream takes longer to come into being than all of the above.
  const output = given ?? process.stderr;
  const lock = join(root, "zig-out", ".setup-lock");
  const onWait = () =>
    output.write("setup  another process is at it in this checkout; waiting for it to finish\n");
  return withLock(lock, onWait, async () => {
    const installed = !dependenciesCurrent(root);
    if (installed) await installDependencies(root, output);
    const built = !kernelsCurrent(root, kernels);
    if (built) await buildKernels(root, kernels, output);
    return { installed, built };
  });
}
