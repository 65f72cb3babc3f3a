/**
 * Whether attribution finds what a question is about: `node --import tsx examples/shapes/attribution.ts`. Of questions about one
 * shape, of which the true place is known (eval/places.jsonl), is the map's peak in its cell, and do the words matter?
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { runScript, UsageError } from "../../scripts/script.ts";

const HELP = `usage: node --import tsx examples/shapes/attribution.ts [--count N] [--window N] [--stride N] [--fill FILL]

Asks the embedded checkpoint questions about one shape of an image, and compares the places that its answers rest on with
the shape's true place, a cell of nine.

  --count N    questions, drawn evenly from 286 (default 200)
  --window N, --stride N, --fill mean|blur|image_mean, --word remove|pad
               as of instructblip attribute`;

/** Words that name a shape, its place, or what is asked of it. The others could be any question's. */
const NAMING = new Set(
  (
    "circle square triangle star red green blue yellow purple orange top bottom left right center " +
    "color shape size big small large where"
  ).split(" "),
);

interface Place {
  readonly id: string;
  readonly cell: number;
  readonly shapes: number;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      count: { type: "string", default: "200" },
      window: { type: "string" },
      stride: { type: "string" },
      fill: { type: "string" },
      word: { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const count = Number(values.count);
  const places = lines<Place>("places.jsonl");
  if (!Number.isSafeInteger(count) || count < 1 || count > places.length) {
    throw new UsageError(`--count must be a whole number from 1 to ${places.length}`);
  }
  const asked = places.filter(
    (_, i) => Math.floor((i * count) / places.length) !== Math.floor(((i - 1) * count) / places.length),
  );
  const { AutoModelForImageTextToText, AutoProcessor, attribute, occludedWords } = await import(
    "../../src/index.node.ts"
  );
  const checkpoint = fileURLToPath(new URL("checkpoint", import.meta.url));
  const processor = await AutoProcessor.from_pretrained(checkpoint);
  const model = await AutoModelForImageTextToText.from_pretrained(checkpoint);
  const number = (text: string | undefined) => (text === undefined ? undefined : Number(text));
  const options = { window: number(values.window), stride: number(values.stride), fill: values.fill as never };
  const requests = new Map(
    lines<{ id: string; images: string[]; prompts: string[] }>("requests.jsonl").map((line) => [line.id, line]),
  );

  const maps = { occlusion: [0, 0], rollout: [0, 0], "cross-attention": [0, 0] }; // peaks in the cell; share of the map in it
  const found = { named: 0, chance: 0, halved: 0, naming: [] as number[], others: [] as number[] };
  let used = "";
  for (const [i, { id, cell }] of asked.entries()) {
    if (process.stderr.isTTY) process.stderr.write(`\rquestion ${i + 1} of ${asked.length}\x1b[K`);
    const { images, prompts } = requests.get(id)!;
    const image = fileURLToPath(new URL(`eval/${images[0]}`, import.meta.url));
    const inputs = (await processor({ images: [image], text: prompts })) as never;
    const words = await occludedWords(processor, prompts[0]!, inputs, { word: (values.word ?? "remove") as never });
    const {
      grid,
      image: occluded,
      attention,
      words: lost,
      answer,
    } = await attribute(model, inputs, { ...options, words });
    used = `windows of ${occluded!.window} x ${occluded!.window} patches, stride ${occluded!.stride}, filled with ${occluded!.fill}`;
    const sumOf = (rows: readonly ArrayLike<number>[]) =>
      Array.from(rows[0]!, (_, j) => rows.reduce((sum, row) => sum + row[j]!, 0));
    const told = answer.length - 1; // without the end token
    const of = {
      occlusion: sumOf(occluded!.drops),
      rollout: sumOf(attention!.slice(0, told).map(({ rollout }) => rollout.patches)),
      "cross-attention": sumOf(attention!.slice(0, told).map(({ cross_attention }) => cross_attention.patches)),
    };
    for (const [name, map] of Object.entries(of)) {
      const at = (patch: number) => {
        const [row, column] = [Math.floor(patch / grid.columns), patch % grid.columns];
        return Math.floor((3 * row) / grid.rows) * 3 + Math.floor((3 * column) / grid.columns);
      };
      const positive = map.map((x) => Math.max(0, x));
      const inside = positive.filter((_, patch) => at(patch) === cell);
      const sums = maps[name as keyof typeof maps];
      sums[0]! += Number(at(map.indexOf(Math.max(...map))) === cell);
      const all = positive.reduce((a, b) => a + b, 0);
      sums[1]! += all > 0 ? inside.reduce((a, b) => a + b, 0) / all : 0;
    }
    const losses = lost!.map((drops) => drops.reduce((a, b) => a + b, 0));
    const naming = words.map(({ text }) => NAMING.has(text.toLowerCase()));
    found.named += Number(naming[losses.indexOf(Math.max(...losses))]);
    found.chance += naming.filter(Boolean).length / naming.length;
    found.halved += Number(Math.max(...losses) > Math.LN2);
    for (const [w, loss] of losses.entries()) found[naming[w] ? "naming" : "others"].push(loss);
  }
  model.dispose();
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");

  const percent = (sum: number) => `${((100 * sum) / asked.length).toFixed(1)} %`;
  const mean = (list: readonly number[]) => (list.reduce((a, b) => a + b, 0) / list.length).toFixed(2);
  const shapes = asked.reduce((sum, place) => sum + 1 / place.shapes, 0);
  console.log(`${asked.length} questions about one shape; ${used}`);
  console.log("map              peak in its cell  share in its cell");
  for (const [name, [peak, share]] of Object.entries(maps)) {
    console.log(`${name.padEnd(17)}${percent(peak!).padStart(16)}${percent(share!).padStart(19)}`);
  }
  console.log(`chance           ${"11.1 %".padStart(16)}${"11.1 %".padStart(19)}`);
  console.log(`any of its shapes${percent(shapes).padStart(16)}`);
  console.log(
    `the word of the largest drop names the shape or what is asked: ${percent(found.named)} (chance ${percent(found.chance)})`,
  );
  console.log(`without that word the answer is less than half as probable: ${percent(found.halved)}`);
  console.log(`mean drop in nats: ${mean(found.naming)} of such words, ${mean(found.others)} of others`);
  return 0;
}

function lines<T>(file: string): T[] {
  const text = readFileSync(new URL(`eval/${file}`, import.meta.url), "utf8");
  return text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as T);
}

await runScript(main);
