/** The goldens of test/golden/generation/make.py, and its table model as a decoder. */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { logSoftmaxInPlace, topIndices } from "../../../src/instructblip/generation/arithmetic.ts";
import type { DecodingConfig, GenerationSetting } from "../../../src/instructblip/generation/configuration.ts";
import type {
  ArgmaxResult,
  Candidates,
  Decoder,
  Logits,
  ScoreEdits,
  Tokens,
} from "../../../src/instructblip/generation/decoder.ts";
import { negativePrompt } from "../../../src/instructblip/generation/guidance.ts";
import type { GenerationOptions } from "../../../src/instructblip/generation/options.ts";
import { rowsOf } from "../../../src/instructblip/generation/output.ts";
import type { WatermarkDetectorOutput } from "../../../src/instructblip/generation/watermark/watermark.ts";
import type { WatermarkingConfig } from "../../../src/instructblip/generation/watermark/watermark_options.ts";
import { argmax } from "../../../src/tensor/reference/argmax.ts";

export interface SearchCase {
  prompt: number[][];
  kwargs: GenerationOptions;
  ids: { eos_token_id: number; pad_token_id: number | null };
  sequences: number[][];
  sequences_scores?: number[];
  beam_indices?: number[][];
  /** f32[steps, rows, V] in base64 */
  scores?: string;
  logits?: string;
}

export interface ProcessorCase {
  kwargs: GenerationOptions;
  prompt_length: number;
  rows: number[][];
  /** f32[rows, V] in base64 */
  scores: string;
  after: string;
  probabilities: string;
}

interface Goldens {
  vocabulary: number;
  positions: number;
  /** i16, in 1/4096 */
  table: Record<"last" | "before" | "position", string>;
  beams_144: SearchCase[];
  searches: SearchCase[];
  processors: ProcessorCase[];
}

/** What make.py's marked_searches() and what comes after it have made. */
interface Marked {
  searches: SearchCase[];
  processors: ProcessorCase[];
  detections: {
    config: WatermarkingConfig;
    ids: { bos_token_id: number; decoder_start_token_id?: number };
    rows: number[][];
    z_threshold: number;
    /** Of every row. */
    found: Record<keyof WatermarkDetectorOutput, (number | boolean)[]>;
  }[];
  random_numbers: { seed: string; few: number[]; one: number[]; many: number[]; bits: number[] }[];
}

export function read<T>(name: string): T {
  return JSON.parse(
    gunzipSync(readFileSync(new URL(`../../golden/generation/data/${name}`, import.meta.url))).toString(),
  );
}

export const GOLDENS = read<Goldens>("goldens.json.gz");
export const MARKED = read<Marked>("marked.json.gz");
export const V = GOLDENS.vocabulary;

const bytes = (text: string) => Uint8Array.from(Buffer.from(text, "base64")).buffer;
export const floats = (text: string) => new Float32Array(bytes(text));
const part = (name: "last" | "before" | "position") =>
  Float32Array.from(new Int16Array(bytes(GOLDENS.table[name])), (value) => value / 4096);
const TABLE = { last: part("last"), before: part("before"), position: part("position") };

/** make.py's own processor and criterion, by the names that it has for them. */
const CUSTOM: Record<string, unknown> = {
  every_third: (rows: readonly (readonly number[])[], scores: readonly Float32Array[]) => {
    for (const [r, ids] of rows.entries()) {
      const shift = ids.length + ids[ids.length - 1];
      for (let v = 0; v < V; v++) if ((v + shift) % 3 === 0) scores[r][v] += 1.5;
    }
  },
  sum_of_two: (ids: readonly number[]) => ids.slice(-2).reduce((sum, id) => sum + id, 0) % 5 === 0,
};

/** Options from the kwargs of a case, where functions have names. */
export function optionsOf(kwargs: object): GenerationOptions {
  const options: Record<string, unknown> = { ...kwargs };
  for (const name of ["logits_processor", "stopping_criteria"]) {
    if (options[name]) options[name] = (options[name] as string[]).map((one) => CUSTOM[one]);
  }
  return options as GenerationOptions;
}

/** The table without the prompt, for guidance. */
export function unconditionalOf(config: DecodingConfig, { prompt }: SearchCase): TableDecoder | undefined {
  const model = { is_encoder_decoder: false, num_embeddings: V };
  const negative = negativePrompt(config, prompt, model);
  return negative && new TableDecoder(negative.ids);
}

/** The setting that a case was made in. */
export function settingOf({ prompt, ids }: SearchCase): GenerationSetting {
  const { eos_token_id, pad_token_id } = ids;
  const promptLength = prompt[0].length;
  return { promptLength, vocabulary: V, max_position_embeddings: 64, eos_token_id, pad_token_id };
}

class HostLogits implements Logits {
  readonly data: Float32Array;
  readonly #onRead: () => void;
  constructor(data: Float32Array, onRead: () => void) {
    this.data = data;
    this.#onRead = onRead;
  }
  async read(): Promise<Float32Array> {
    this.#onRead();
    return this.data.slice();
  }
}

class HostTokens implements Tokens {
  readonly ids: readonly number[];
  constructor(ids: readonly number[]) {
    this.ids = ids;
  }
  async read(): Promise<Uint32Array> {
    return Uint32Array.from(this.ids);
  }
  dispose(): void {}
}

/** Follows its own memory of what it was fed, so that a wrong reorder() gives wrong tokens. Counts what was read back. */
export class TableDecoder implements Decoder<HostLogits, HostTokens> {
  rows: number[][];
  reads = 0;
  steps = 0;
  readonly logSoftmax?: (logits: HostLogits) => HostLogits;
  readonly edit?: (logits: HostLogits, edits: ScoreEdits) => HostLogits;
  readonly topK?: NonNullable<Decoder<HostLogits, HostTokens>["topK"]>;
  inFlight?: number;

  readonly #parts: typeof TABLE;

  /**
   * @param shortcuts offer what a GPU does
   * @param forgets the id before the last, as the assistant of assisted.py
   */
  constructor(prompt: readonly (readonly number[])[], shortcuts = false, forgets = false) {
    this.rows = prompt.map((ids) => [...ids]);
    this.#parts = forgets ? { ...TABLE, before: new Float32Array(TABLE.before.length) } : TABLE;
    if (!shortcuts) return;
    this.logSoftmax = ({ data }) => this.#changed(data, (row) => logSoftmaxInPlace(row));
    this.edit = ({ data }, { penalty, penalised, banned }) =>
      this.#changed(data, (row, r) => {
        for (const id of penalised[r]) row[id] = row[id] < 0 ? row[id] * penalty : row[id] / penalty;
        for (const id of banned[r]) row[id] = Number.NEGATIVE_INFINITY;
      });
    this.topK = (logProbs, scores, beams, K) => this.#topK(logProbs, scores, beams, K);
  }

  prefill(): HostLogits {
    return this.#logits();
  }

  step(tokens: HostTokens): HostLogits {
    if (tokens.ids.length !== this.rows.length)
      throw new Error(`${tokens.ids.length} tokens, ${this.rows.length} rows`);
    this.steps++;
    for (const [i, id] of tokens.ids.entries()) this.rows[i].push(id);
    return this.#logits();
  }

  extend({ ids }: HostTokens): HostLogits {
    const [row, ...others] = this.rows;
    if (others.length > 0) throw new Error("of one row");
    this.steps++;
    const prefixes = ids.map((_, i) => [...row, ...ids.slice(0, i + 1)]);
    row.push(...ids);
    return this.#logits(prefixes);
  }

  crop(tokens: number): void {
    if (!(tokens > 0 && tokens < this.rows[0].length)) throw new Error(`cannot forget ${tokens} tokens`);
    this.rows[0].splice(-tokens);
  }

  upload(tokens: readonly number[]): HostTokens {
    if (tokens.some((id) => id < 0 || id >= V)) throw new Error(`not ids: ${tokens}`);
    return new HostTokens(tokens);
  }

  argmax({ data }: HostLogits): ArgmaxResult<HostTokens> {
    const R = data.length / V;
    const found = argmax(data, V);
    const ids = found.slice(0, R);
    return {
      tokens: new HostTokens([...ids]),
      read: async () => ({ ids, undecided: [...ids.keys()].filter((r) => found[R + r] === 1) }),
    };
  }

  reorder(rows: readonly number[]): void {
    this.rows = rows.map((row) => [...this.rows[row]]);
  }

  scope<T>(fn: () => T): T {
    return fn();
  }

  #changed(data: Float32Array, change: (row: Float32Array, r: number) => void): HostLogits {
    const copy = data.slice();
    for (const [r, row] of rowsOf(copy, data.length / V).entries()) change(row, r);
    return this.#counted(copy);
  }

  async #topK({ data }: HostLogits, scores: Float32Array, beams: number, K: number): Promise<Candidates> {
    const found: number[] = [];
    const indices: number[] = [];
    for (let first = 0; first < this.rows.length; first += beams) {
      const sums = data.slice(first * V, (first + beams) * V);
      for (let i = 0; i < sums.length; i++) sums[i] += scores[first + Math.floor(i / V)];
      const best = topIndices(sums, K);
      indices.push(...best);
      found.push(...best.map((i) => sums[i]));
    }
    return { scores: Float32Array.from(found), indices: Uint32Array.from(indices) };
  }

  #logits(rows = this.rows): HostLogits {
    const { last: byLast, before: byBefore, position: byPosition } = this.#parts;
    const data = new Float32Array(rows.length * V);
    for (const [r, ids] of rows.entries()) {
      const [last, before] = [ids[ids.length - 1], ids[ids.length - 2] ?? 0];
      const position = (ids.length - 1) % GOLDENS.positions;
      for (let v = 0; v < V; v++) {
        data[r * V + v] = byLast[last * V + v] + byBefore[before * V + v] + byPosition[position * V + v];
      }
    }
    return this.#counted(data);
  }

  #counted(data: Float32Array): HostLogits {
    return new HostLogits(data, () => this.reads++);
  }
}
