/**
 * Packs into .gpu/ what a machine with a GPU needs that can build and fetch nothing: this Bun, the built kernels and
 * the revision. `gpu.sh` unpacks it there.
 */

import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "..", "..", "..");
const FOLDER = join(ROOT, ".gpu");
const LIBRARIES = process.env.MISTRALRS_KERNEL_FOLDER ?? join(ROOT, "zig-out", "lib");

function must(command: readonly string[], cwd = ROOT): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...command], { cwd });
  if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr.toString()}`);
  return stdout.toString().trim();
}

if (!existsSync(join(LIBRARIES, "libmistral_cuda.so"))) {
  throw new Error(`there is no libmistral_cuda.so in ${LIBRARIES}; build it with \`bun run build --all\``);
}
rmSync(FOLDER, { recursive: true, force: true });
mkdirSync(FOLDER);
const libraries = readdirSync(LIBRARIES).filter((name) => name.endsWith(".so"));
must(["tar", "-cJf", join(FOLDER, "lib.tar.xz"), ...libraries], LIBRARIES);
copyFileSync(process.execPath, join(FOLDER, "bun"));
must(["xz", "-6", "-T0", join(FOLDER, "bun")]);
writeFileSync(join(FOLDER, "revision"), `${must(["git", "rev-parse", "HEAD"])}\n`);
for (const name of readdirSync(FOLDER)) {
  console.log(`.gpu/${name}: ${(statSync(join(FOLDER, name)).size / 2 ** 20).toFixed(1)} MiB`);
}
