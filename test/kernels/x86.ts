/**
 * The x86-64 kernels of levels that this machine's processor lacks, tiles among them: the conformance suite of this
 * folder under Linux on a machine that Bochs emulates.
 *
 * `bun test/kernels/x86.ts --bochs FOLDER --linux FILE [--levels NAMES] [--suites NAMES] [--syslinux FOLDER]`;
 * kernels/README.md says where these come from. It takes many minutes and is no part of `bun run test`.
 */

import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { INSTRUCTION_SETS } from "../../src/backend/instruction-set.ts";

const ROOT = join(import.meta.dir, "..", "..");
const ZIG = join(ROOT, "node_modules", "@zigc", "cli", "bin", "zig");
const X86_LEVELS = INSTRUCTION_SETS.filter((level) => level.startsWith("x86_64"));
/** What the machine cannot do without. */
const TOOLS = ["busybox", "cpio", "xorriso"] as const;
/**
 * Both leave out what does not work in Bochs 3 or is not needed. 580 is the processor's promise of fast short copies, for
 * which Linux moves memory by other code.
 */
const EXCLUDED_FEATURES = "cet,uintr,pks,la57";
const KERNEL_ARGUMENTS =
  "console=ttyS0 quiet mitigations=off clearcpuid=580 nofsgsbase ibt=off nosmap nosmep nopku lsm=yama nokaslr";
/** What the machine writes when a suite has ended. */
const SUITE_ENDED = /^suite (\S+) (\S+) status (\d+)$/gm;

const { values: options } = parseArgs({
  options: {
    /** Where Bochs was installed: has `bin/bochs` and `share/bochs`. */
    bochs: { type: "string" },
    /** A bzImage of Linux with a driver for serial lines in it. */
    linux: { type: "string" },
    syslinux: { type: "string", default: "/usr/lib" },
    levels: { type: "string", default: "x86_64_v4_amx" },
    suites: { type: "string", default: "matmul,matmul-shapes,matmul-float-tiles,rows,sample,attention" },
  },
});

if (options.bochs === undefined || options.linux === undefined)
  throw new Error("--bochs FOLDER and --linux FILE are needed; kernels/README.md says where they come from");
const levels = options.levels.split(",");
for (const level of levels) {
  if (!X86_LEVELS.some((name) => name === level))
    throw new Error(`there is no x86-64 level ${level}; there are ${X86_LEVELS.join(", ")}`);
}
const suites = options.suites.split(",");
const known = readdirSync(import.meta.dir).filter((name) => name.endsWith(".test.ts"));
for (const suite of suites) {
  if (!known.includes(`${suite}.test.ts`))
    throw new Error(
      `there is no suite ${suite}; there are ${known.map((name) => basename(name, ".test.ts")).join(", ")}`,
    );
}
const tools = Object.fromEntries(TOOLS.map((tool) => [tool, Bun.which(tool)]));
const missing = TOOLS.filter((tool) => tools[tool] === null);
if (missing.length > 0)
  throw new Error(
    `nothing was tested: ${missing.join(", ")} missing on PATH; Debian has them under these names`,
  );

const emulator = join(resolve(options.bochs), "bin", "bochs");
const bootLoader = [
  join(options.syslinux, "ISOLINUX", "isolinux.bin"),
  join(options.syslinux, "syslinux", "modules", "bios", "ldlinux.c32"),
];
for (const file of [emulator, options.linux, ...bootLoader]) {
  if (!existsSync(file)) throw new Error(`nothing was tested: there is no ${file}`);
}

const folder = mkdtempSync(join(tmpdir(), "mistral-x86-"));
const serial = join(folder, "serial.txt");
let status = 1;
try {
  makeGuest(join(folder, "guest"));
  makeDisc(join(folder, "guest"), join(folder, "disc"));
  status = await boot(join(resolve(options.bochs), "share", "bochs"));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
process.exit(status);

/** Runs a program with our streams. */
function run(command: readonly string[]): void {
  const { success } = Bun.spawnSync([...command], { cwd: ROOT, stdio: ["ignore", "inherit", "inherit"] });
  if (!success) throw new Error(`failed: ${command.join(" ")}`);
}

/** The emulated machine's files: this Bun, the C library it needs, the suites without their imports, the kernels. */
function makeGuest(guest: string): void {
  for (const name of ["bin", "dev", "proc", "sys", "tmp", "suites"])
    mkdirSync(join(guest, name), { recursive: true });
  const target = ["-Dtarget=x86_64-linux-gnu", `-Dlevels=${levels.join(",")}`];
  run([ZIG, "build", ...target, "--prefix", join(folder, "kernels")]);
  for (const level of levels) {
    const library = `libmistral_cpu.${level}.so`;
    mkdirSync(join(guest, "kernels", level), { recursive: true });
    copyFileSync(join(folder, "kernels", "lib", library), join(guest, "kernels", level, library));
  }
  for (const suite of suites) {
    const source = join(import.meta.dir, `${suite}.test.ts`);
    const output = join(guest, "suites", `${suite}.test.js`);
    run([process.execPath, "build", source, "--target=bun", `--outfile=${output}`]);
  }
  copyFileSync(tools.busybox!, join(guest, "bin", "busybox"));
  copyFileSync(process.execPath, join(guest, "bin", "bun"));
  const needed = Bun.spawnSync(["ldd", process.execPath]).stdout.toString();
  for (const [library] of needed.matchAll(/\/\S+/g)) {
    mkdirSync(join(guest, dirname(library)), { recursive: true });
    copyFileSync(library, join(guest, library));
  }
  writeFileSync(join(guest, "init"), guestScript());
  chmodSync(join(guest, "init"), 0o755);
}

function guestScript(): string {
  const tests = levels.flatMap((level) =>
    suites.map((suite) =>
      [
        `MISTRALRS_KERNEL_FOLDER=/kernels/${level} bun test --timeout 3600000 ./suites/${suite}.test.js 2>&1`,
        `echo "suite ${level} ${suite} status $?"`,
      ].join("\n"),
    ),
  );
  return [
    "#!/bin/busybox sh",
    "/bin/busybox --install -s /bin",
    "export PATH=/bin HOME=/tmp NO_COLOR=1",
    "mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev && mount -t tmpfs tmp /tmp",
    ...tests,
    // What the serial line still holds would be lost.
    "sleep 3",
    "poweroff -f",
    "",
  ].join("\n");
}

/** A disc that starts Linux with these files as its first and only ones. */
function makeDisc(guest: string, disc: string): void {
  mkdirSync(disc);
  const archive = Bun.spawnSync(["sh", "-c", "find . | cpio -o -H newc --quiet"], {
    cwd: guest,
    maxBuffer: 2 ** 30,
  });
  if (!archive.success) throw new Error(`cpio: ${archive.stderr.toString()}`);
  writeFileSync(join(disc, "initrd"), gzipSync(archive.stdout, { level: 1 }));
  copyFileSync(options.linux!, join(disc, "vmlinuz"));
  for (const file of bootLoader) copyFileSync(file, join(disc, basename(file)));
  const entry = `DEFAULT linux\nLABEL linux\n KERNEL vmlinuz\n INITRD initrd\n APPEND ${KERNEL_ARGUMENTS}\n`;
  writeFileSync(join(disc, "isolinux.cfg"), entry);
  const loader = "-b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table".split(" ");
  run(["xorriso", "-as", "mkisofs", "-quiet", "-o", join(folder, "disc.iso"), ...loader, disc]);
}

/** Runs the machine until it turns itself off, and shows what it writes to its serial line. */
async function boot(share: string): Promise<number> {
  const machine = [
    "megs: 2048",
    `cpu: model=sapphire_rapids, exclude_features="${EXCLUDED_FEATURES}", count=1, ips=150000000`,
    `romimage: file=${share}/BIOS-bochs-latest`,
    `vgaromimage: file=${share}/VGABIOS-lgpl-latest.bin`,
    "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14",
    `ata0-master: type=cdrom, path=${join(folder, "disc.iso")}, status=inserted`,
    "boot: cdrom",
    `com1: enabled=1, mode=file, dev=${serial}`,
    "display_library: nogui",
    // By the number of instructions a window of time would be as long as its slowest ones are many.
    "clock: sync=realtime",
    `log: ${join(folder, "bochs.log")}`,
    "panic: action=fatal",
    "error: action=ignore",
    "info: action=ignore",
  ];
  writeFileSync(join(folder, "bochsrc"), `${machine.join("\n")}\n`);
  writeFileSync(serial, "");
  const machineProcess = Bun.spawn([emulator, "-q", "-f", join(folder, "bochsrc")], {
    stdio: ["ignore", "ignore", "inherit"],
    env: { ...process.env, BXSHARE: share },
  });
  let shown = 0;
  const show = () => {
    const text = readFileSync(serial, "utf8");
    process.stdout.write(text.slice(shown).replaceAll("\r", ""));
    shown = text.length;
  };
  const timer = setInterval(show, 1000);
  await machineProcess.exited;
  clearInterval(timer);
  show();
  const ended = [...readFileSync(serial, "utf8").replaceAll("\r", "").matchAll(SUITE_ENDED)];
  const passed = ended.filter(([, , , code]) => code === "0").length;
  const wanted = levels.length * suites.length;
  console.log(
    `${passed} of ${wanted} suites passed, ${ended.length - passed} failed, ${wanted - ended.length} did not end`,
  );
  return passed === wanted ? 0 : 1;
}
