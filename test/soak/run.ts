/**
 * The work of `npm run soak`: answers of all kinds, one after the other, and loads and disposals, one after the other; memory must not
 * grow with them.
 */
import { InstructBlipForConditionalGeneration, InstructBlipProcessor, openDevice } from "../../src/index.node.ts";
import { formatBytes } from "../../src/tensor/device/memory.ts";
import { answersOf, KINDS } from "./answers.ts";
import { growth, type Sample } from "./growth.ts";

/** Lines of each table. */
const LINES = 20;

/** Soaks and prints; the exit code. */
export async function run(generations: number, reloads: number): Promise<number> {
  const problems = [...(await soakAnswers(generations)), ...(await soakReloads(reloads))];
  for (const problem of problems) console.log(`GROWS: ${problem}`);
  console.log(problems.length ? "memory grows" : "memory is flat");
  return problems.length ? 1 : 0;
}

async function soakAnswers(generations: number): Promise<string[]> {
  if (generations === 0) return [];
  const device = await openDevice();
  console.log(`${generations} answers of ${KINDS} kinds on ${device.caps.description}`);
  const { answer, use, dispose } = await answersOf(device);
  const table = new Table(generations);
  for (let i = 0; i < generations; i++) {
    await answer(i);
    // After whole rounds of all kinds, so that the samples can be compared.
    if ((i + 1) % KINDS === 0 || i + 1 === generations) await table.add(i + 1, use());
  }
  dispose();
  device.destroy();
  return table.problems;
}

async function soakReloads(reloads: number): Promise<string[]> {
  if (reloads === 0) return [];
  console.log(`\n${reloads} loads, answers and disposals`);
  const folder = new URL("../../examples/shapes/", import.meta.url).pathname;
  const processor = await InstructBlipProcessor.from_pretrained(`${folder}checkpoint`);
  const inputs = await processor({ images: [`${folder}images/a.png`], text: ["Describe the image."] });
  const table = new Table(reloads);
  const devices: WeakRef<object>[] = [];
  for (let i = 0; i < reloads; i++) {
    const model = await InstructBlipForConditionalGeneration.from_pretrained(`${folder}checkpoint`);
    await model.generate({ ...inputs, max_new_tokens: 4 });
    devices.push(new WeakRef(model.device));
    model.dispose();
    await table.add(i + 1);
  }
  await settle();
  const reachable = devices.filter((device) => device.deref() !== undefined).length;
  if (reachable > 1) table.problems.push(`${reachable} of ${reloads} devices can still be reached`);
  return table.problems;
}

/** Samples some twenty times what is in use, prints it, and says what has grown. */
class Table {
  readonly #every: number;
  readonly #total: number;
  readonly #samples: Sample[] = [];
  readonly #started = performance.now();
  #next: number;
  readonly #other: string[] = [];

  constructor(total: number) {
    this.#total = total;
    this.#every = total / LINES;
    this.#next = this.#every;
    console.log(row(["done", "GPU in use", "GPU kept", "buffers", "RSS", "heap", "seconds"]));
  }

  async add(done: number, use?: { live: number; pooled: number; buffers: number }): Promise<void> {
    if (done < this.#next && done !== this.#total) return;
    this.#next = done + this.#every;
    await settle();
    const { rss, heapUsed } = process.memoryUsage();
    const { live = 0, pooled = 0, buffers = 0 } = use ?? {};
    this.#samples.push({ done, live, pooled, buffers, rss, heapUsed });
    const gpu = use ? [formatBytes(live), formatBytes(pooled), String(buffers)] : ["", "", ""];
    const seconds = ((performance.now() - this.#started) / 1000).toFixed(0);
    console.log(row([String(done), ...gpu, formatBytes(rss), formatBytes(heapUsed), seconds]));
  }

  get problems(): string[] {
    this.#other.push(...growth(this.#samples.splice(0)));
    return this.#other;
  }
}

function row(cells: readonly string[]): string {
  return cells.map((cell) => cell.padStart(11)).join(" ");
}

/** Collects what nobody holds any more; the driver's part of it is freed some turns of the event loop later. */
async function settle(): Promise<void> {
  for (let i = 0; i < 2; i++) {
    globalThis.gc?.();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
