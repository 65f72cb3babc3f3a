/** Answers of every kind, by small models with every language model, for detecting leaks. */
import {
  InstructBlipForConditionalGeneration,
  type InstructBlipInputs,
  TextIteratorStreamer,
} from "../../src/index.node.ts";
import { type Device, GpuDevice } from "../../src/tensor/device/device.ts";
import type { MemoryUse } from "../../src/tensor/device/memory.ts";
import { goldenFolder } from "../golden_folder.ts";
import { goldenInputs } from "../parity/golden.ts";

const FOLDERS = ["plain_f32", "t5_flan", "opt_plain"];

interface Asked {
  readonly model: InstructBlipForConditionalGeneration;
  readonly inputs: InstructBlipInputs;
}

/** Says ids as numbers. */
const tokenizer = { decodeStream: () => ({ push: (id: number) => `${id} `, finish: () => "." }) };

const generated =
  (options: object) =>
  async ({ model, inputs }: Asked): Promise<void> => {
    await model.generate({ ...inputs, max_new_tokens: 6, eos_token_id: null, ...options });
  };

async function streamed({ model, inputs }: Asked, pieces: number): Promise<void> {
  const streamer = new TextIteratorStreamer(tokenizer, { skip_prompt: true });
  const done = model.generate({ ...inputs, max_new_tokens: 6, eos_token_id: null, streamer });
  let n = 0;
  for await (const _ of streamer) if (++n === pieces) break;
  await done;
}

async function aborted({ model, inputs }: Asked): Promise<void> {
  const stop = new AbortController();
  const on_token = (step: number) => {
    if (step === 2) stop.abort(tooLate);
  };
  const answer = model.generate({ ...inputs, max_new_tokens: 6, eos_token_id: null, signal: stop.signal, on_token });
  await answer.catch((error: unknown) => {
    if (error !== tooLate) throw error;
  });
}
const tooLate = new Error("aborted on purpose");

const ANSWERS: readonly ((asked: Asked) => Promise<void>)[] = [
  generated({}),
  generated({ max_new_tokens: 17 }),
  generated({ num_beams: 4 }),
  generated({ num_beams: 2, num_return_sequences: 2, max_new_tokens: 12 }),
  generated({ do_sample: true, seed: 1 }),
  generated({ do_sample: true, seed: 2, top_k: 5, num_return_sequences: 3 }),
  generated({ do_sample: true, seed: 3, num_beams: 3 }),
  generated({ repetition_penalty: 1.3, no_repeat_ngram_size: 2 }),
  // T5 cannot be guided.
  (asked) => generated(asked.model.language_model.is_encoder_decoder ? {} : { guidance_scale: 1.5 })(asked),
  generated({
    return_dict_in_generate: true,
    output_scores: true,
    output_logits: true,
    output_hidden_states: true,
    output_attentions: true,
  }),
  (asked) => streamed(asked, Number.POSITIVE_INFINITY),
  (asked) => streamed(asked, 2),
  aborted,
  async ({ model, inputs }) => {
    await model.rank_answers({ ...inputs, candidates: [[5, 6], [7], [8, 9, 10]] });
  },
  async ({ model, inputs }) => {
    const { qformer_input_ids, qformer_attention_mask, pixel_values } = inputs;
    const look = () => model.get_image_features({ pixel_values, qformer_input_ids, qformer_attention_mask });
    await model.device.scope(async () => void (await (await look()).image_features.read()));
  },
];

/** Kinds of answers there are: each way, of each model, with and without steps ahead. */
export const KINDS = 2 * ANSWERS.length * FOLDERS.length;

/** A third of the kinds: each way, of one model, with and without steps ahead. */
export const SAMPLE: readonly number[] = Array.from({ length: KINDS }, (_, i) => i).filter((i) => {
  const way = Math.floor(i / (2 * FOLDERS.length));
  return i % FOLDERS.length === way % FOLDERS.length;
});

export interface Answers {
  /** Gives the answer number i, whose kind is i modulo KINDS. */
  answer(i: number): Promise<void>;
  /** What the GPU holds for all of it. */
  use(): Pick<MemoryUse, "live" | "pooled" | "buffers">;
  dispose(): void;
}

/** Loads the models onto `device`. */
export async function answersOf(device: Device): Promise<Answers> {
  // A GPU is given steps before the last one's ids are read; both ways are to be seen, on any adapter.
  const others = [true, false].map(
    (isSoftware) => new GpuDevice(device.handle, { ...device.caps, isSoftware }, Infinity),
  );
  const asked: Asked[] = [];
  for (const on of others) {
    for (const name of FOLDERS) asked.push(await load(on, name));
  }
  return {
    answer: (i) => ANSWERS[Math.floor(i / asked.length) % ANSWERS.length](asked[i % asked.length]),
    use: () => {
      const all = others.map(({ memory }) => memory.use);
      const sum = (of: "live" | "pooled" | "buffers") => all.reduce((total, use) => total + use[of], 0);
      return { live: sum("live"), pooled: sum("pooled"), buffers: sum("buffers") };
    },
    dispose: () => {
      for (const { model } of asked) model.dispose();
    },
  };
}

async function load(device: Device, name: string): Promise<Asked> {
  const model = await InstructBlipForConditionalGeneration.from_pretrained(goldenFolder(name), { device });
  return { model, inputs: await goldenInputs(name, 1) };
}
