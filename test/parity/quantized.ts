/**
 * The work of `npm run quality`: the error of weights stored as f16, bf16, int8 or int4, or multiplied as f16. The embedded
 * checkpoint answers its evaluation questions in f32; every other mode then computes the logits of the same answers, token by
 * token, and its own answers.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { InstructBlipForConditionalGeneration, InstructBlipProcessor, openDevice } from "../../src/index.node.ts";
import { formatStorage, parseStorage, type StorageDType } from "../../src/modules/storage_dtype.ts";
import type { Device } from "../../src/tensor/device/device.ts";
import { qualityJson } from "./quality_json.ts";

const shapes = new URL("../../examples/shapes/", import.meta.url);
const checkpoint = fileURLToPath(new URL("checkpoint/", shapes));

interface Request {
  readonly id: string;
  readonly images: readonly string[];
  readonly prompts: readonly string[];
  readonly generation: { readonly max_new_tokens: number };
}

/** How weights are stored, or, of `compute_dtype=f16`, what products of many rows multiply. */
export type Mode = StorageDType | typeof COMPUTE_F16;
export const COMPUTE_F16 = "compute_dtype=f16";

/** What a mode does to the answers; KL divergences in nats, of the next token's distribution from f32's. */
export interface Quality {
  readonly dtype: string;
  readonly tokens: number;
  readonly meanKl: number;
  /** 99 % of tokens are below it. */
  readonly kl99: number;
  readonly maxKl: number;
  /** Share of tokens whose argmax is f32's. */
  readonly top1: number;
  /** Share of answers that are f32's. */
  readonly sameAnswers: number;
  /** Share of answers that are right. */
  readonly accuracy: number;
}

/** Bounds on mean KL and top-1 agreement. What llama.cpp's table of a 7B model has: q8_0 3.7e-4, 98.8 %; q4_K_M 1.3e-2, 94.7 %. */
export const GATES: Readonly<Record<string, { readonly meanKl: number; readonly top1: number }>> = {
  f32: { meanKl: 0, top1: 1 },
  f16: { meanKl: 1e-4, top1: 0.995 },
  int8: { meanKl: 2e-3, top1: 0.98 },
  int4: { meanKl: 3e-2, top1: 0.93 },
  [COMPUTE_F16]: { meanKl: 1e-4, top1: 0.995 },
};

/** Whether a mode keeps what it must; undefined where nothing is asked of it. */
export function passes({ dtype, meanKl, top1 }: Quality): boolean | undefined {
  const gate = GATES[dtype];
  return gate && meanKl <= gate.meanKl && top1 >= gate.top1;
}

/** Compares modes with f32 on `count` questions, drawn evenly from all. */
export async function compareModes(
  device: Device,
  modes: readonly Mode[],
  count: number,
  show: (text: string) => void = () => {},
): Promise<Quality[]> {
  const requests = lines<Request>("eval/requests.jsonl");
  const expected = new Map(
    lines<{ id: string; answer: string }>("eval/expected.jsonl").map((line) => [line.id, line.answer]),
  );
  const asked = requests.filter(
    (_, i) => Math.floor((i * count) / requests.length) !== Math.floor(((i - 1) * count) / requests.length),
  );
  const processor = await InstructBlipProcessor.from_pretrained(checkpoint);
  const inputs = await Promise.all(
    asked.map(({ images, prompts }) =>
      processor({ images: images.map((image) => fileURLToPath(new URL(`eval/${image}`, shapes))), text: [...prompts] }),
    ),
  );
  const text = (ids: readonly number[]) => processor.batch_decode([[...ids]], { skip_special_tokens: true })[0].trim();

  /** Of every question: f32's answer, and the log-probabilities before each of its tokens. */
  const truth: { answer: number[]; logProbs: Float64Array[] }[] = [];
  const run = async (mode: Mode): Promise<Quality> => {
    const name = mode === COMPUTE_F16 ? mode : formatStorage(mode);
    const options = mode === COMPUTE_F16 ? ({ compute_dtype: "f16" } as const) : { dtype: mode };
    const model = await InstructBlipForConditionalGeneration.from_pretrained(checkpoint, { device, ...options });
    const [divergences, counts] = [[] as number[], { top1: 0, same: 0, right: 0 }];
    for (const [i, { id, generation }] of asked.entries()) {
      show(`${name}: question ${i + 1} of ${asked.length}`);
      const given = inputs[i] as Parameters<typeof model.forward>[0];
      const prompt = given.input_ids![0];
      const [sequence] = await model.generate({ ...given, ...generation });
      const answer = sequence.slice(prompt.length);
      const forced = truth[i]?.answer ?? answer;
      const logProbs = await device.scope(async () => {
        const input_ids = [[...prompt, ...forced]];
        const { logits } = await model.forward({ ...given, input_ids, attention_mask: [input_ids[0].map(() => 1)] });
        const V = logits.shape[2];
        const all = await logits.read();
        return forced.map((_, t) => logSoftmax(all.subarray((prompt.length + t - 1) * V, (prompt.length + t) * V)));
      });
      truth[i] ??= { answer, logProbs };
      for (const [t, row] of logProbs.entries()) {
        const reference = truth[i].logProbs[t];
        divergences.push(divergence(reference, row));
        if (argmax(reference) === argmax(row)) counts.top1++;
      }
      if (answer.join() === truth[i].answer.join()) counts.same++;
      if (text(answer) === expected.get(id)) counts.right++;
    }
    model.dispose();
    divergences.sort((a, b) => a - b);
    const tokens = divergences.length;
    return {
      dtype: name,
      tokens,
      meanKl: divergences.reduce((a, b) => a + b) / tokens,
      kl99: divergences[Math.ceil(0.99 * tokens) - 1],
      maxKl: divergences[tokens - 1],
      top1: counts.top1 / tokens,
      sameAnswers: counts.same / asked.length,
      accuracy: counts.right / asked.length,
    };
  };
  const rows = [await run("f32")];
  for (const mode of modes) rows.push(await run(mode));
  return rows;
}

/** Σ p ln(p / q), of log-probabilities. */
function divergence(p: Float64Array, q: Float64Array): number {
  return p.reduce((sum, logP, i) => sum + Math.exp(logP) * (logP - q[i]), 0);
}

function logSoftmax(logits: Float32Array): Float64Array {
  const most = logits.reduce((a, b) => Math.max(a, b));
  const sum = logits.reduce((total, x) => total + Math.exp(x - most), 0);
  return Float64Array.from(logits, (x) => x - most - Math.log(sum));
}

function argmax(row: Float64Array): number {
  return row.reduce((best, x, i) => (x > row[best] ? i : best), 0);
}

function lines<T>(file: string): T[] {
  const all = readFileSync(new URL(file, shapes), "utf8").trimEnd().split("\n");
  return all.map((line) => JSON.parse(line) as T);
}

/**
 * Compares modes, given by name, with f32 and prints a table; the exit code.
 *
 * @param json a file for the figures; - is stdout, and the table then goes to stderr
 */
export async function run(names: readonly string[], count: number, json?: string): Promise<number> {
  const modes = names.map((text) => (text === COMPUTE_F16 ? text : parseStorage(text)));
  const device = await openDevice();
  const show = process.stderr.isTTY ? (text: string) => process.stderr.write(`\r\x1b[K${text}`) : undefined;
  const rows = await compareModes(device, modes, count, show);
  show?.("");
  const print = json === "-" ? console.error : console.log;
  print(`${count} questions, ${rows[0].tokens} tokens, on ${device.caps.description}`);
  const table = [["mode", "mean KL", "99 % KL", "max KL", "top-1", "same answer", "right", "gate"]];
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  for (const row of rows) {
    const passed = passes(row);
    table.push([
      row.dtype,
      ...[row.meanKl, row.kl99, row.maxKl].map((kl) => kl.toExponential(1)),
      ...[row.top1, row.sameAnswers, row.accuracy].map(percent),
      passed === undefined ? "-" : passed ? "ok" : "FAIL",
    ]);
  }
  const widths = table[0].map((_, column) => Math.max(...table.map((cells) => cells[column].length)));
  for (const cells of table) {
    print(cells.map((cell, i) => (i ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join("  "));
  }
  const figures = qualityJson(device.caps.description, count, rows, GATES);
  if (json === "-") process.stdout.write(figures);
  else if (json !== undefined) writeFileSync(json, figures);
  device.destroy();
  return rows.some((row) => passes(row) === false) ? 1 : 0;
}
