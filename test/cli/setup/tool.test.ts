import { expect, test } from "bun:test";
import { join } from "node:path";
import { runTool } from "../../../src/cli/setup/tool.ts";

const TOOL = join(import.meta.dir, "../../../src/cli/setup/tool.ts");

test("keeps what a tool printed and how it ended", async () => {
  const script = "console.log('out'); console.error('err'); process.exit(3)";
  expect(await runTool([process.execPath, "-e", script], "/")).toEqual({
    status: 3,
    stdout: "out\n",
    stderr: "err\n",
  });
});

test("a stopped set-up takes its tool with it", async () => {
  const tool = "console.log(process.pid); setInterval(() => {}, 1000)";
  const script = `
    import { runTool } from ${JSON.stringify(TOOL)};
    const { spawn } = Bun;
    Bun.spawn = (...options) => {
      const child = spawn(...options);
      console.log(child.pid);
      return child;
    };
    await runTool([process.execPath, "-e", ${JSON.stringify(tool)}], "/");
  `;
  const setup = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "inherit" });
  const { value } = await setup.stdout.pipeThrough(new TextDecoderStream()).getReader().read();
  const toolPid = Number(value);
  expect(toolPid).toBeGreaterThan(0);
  setup.kill("SIGTERM");
  expect(await setup.exited).toBe(143);
  const alive = () => {
    try {
      process.kill(toolPid, 0);
      return true;
    } catch {
      return false;
    }
  };
  for (const start = Date.now(); alive() && Date.now() - start < 5_000; await Bun.sleep(10));
  expect(alive()).toBe(false);
});
