/** Answers and loads leak no memory. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { compiled, PATIENT } from "../../compiled.ts";
import { testDevice } from "../../device.ts";
import { goldenFolder } from "../../golden_folder.ts";
import { ALL } from "../../rounds.ts";
import { answersOf, KINDS, SAMPLE } from "../../soak/answers.ts";
import { growth, type Sample } from "../../soak/growth.ts";

const ROOT = join(import.meta.dirname, "../../..");
const { answer, use, dispose } = await answersOf(await testDevice());
afterAll(dispose);

const kinds = ALL ? [...Array(KINDS).keys()] : SAMPLE;
test(`the GPU holds as much after two rounds of ${kinds.length} kinds of answers as after one`, async () => {
  for (const kind of kinds) await answer(kind);
  const before = use();
  for (const kind of kinds) await answer(kind);
  expect(use()).toEqual(before);
});

test("devices that models opened cannot be reached after dispose()", () => {
  const code = `
    import { InstructBlipForConditionalGeneration } from ${JSON.stringify(compiled("src/index.node.ts"))};
    const devices = [];
    for (let i = 0; i < 2; i++) {
      const model = await InstructBlipForConditionalGeneration.from_pretrained(${JSON.stringify(goldenFolder("plain_f32"))});
      devices.push(new WeakRef(model.device), new WeakRef(model.device.handle));
      model.dispose();
    }
    for (let i = 0; i < 10; i++) {
      gc();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    console.log(devices.filter((device) => device.deref() !== undefined).length);
    process.exit();
  `;
  const args = ["--expose-gc", "--input-type=module", "-e", code];
  const options = {
    cwd: ROOT,
    env: { ...process.env, ...PATIENT },
    encoding: "utf8",
    timeout: 100_000,
    killSignal: "SIGKILL",
  } as const;
  const { stdout } = spawnSync(process.execPath, args, options);
  expect(Number(stdout)).toBeLessThanOrEqual(2); // the last one's may still be on the stack
  expect(stdout).not.toBe("");
});

test("a run is judged by its last third", () => {
  const run = (of: (i: number) => Partial<Sample>) =>
    Array.from({ length: 12 }, (_, i): Sample => {
      return { done: i, live: 100, pooled: 50, buffers: 10, rss: 2 ** 29, heapUsed: 2 ** 25, ...of(i) };
    });
  expect(growth(run(() => ({})))).toEqual([]);
  expect(growth(run((i) => ({ live: Math.min(i, 3), rss: 2 ** 29 + 2 ** 27 * Math.min(i, 4) })))).toEqual([]);
  expect(growth(run((i) => ({ pooled: i })))).toEqual(["pooled 4 after 4, 11 in the end"]);
  expect(growth(run((i) => ({ rss: i * 2 ** 26 })))).toHaveLength(1);
});
