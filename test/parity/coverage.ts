/** Coverage of decoding options, models and kinds of input in a run of live parity. */
import type { GenerationOptions } from "../../src/index.node.ts";
import type { GoldenJson } from "./golden.ts";

/** From here on, chance is no excuse. */
export const FULL_RUN = 40;

/** Every option of generate(): drawn, or why not. */
const OPTIONS: Readonly<Record<keyof GenerationOptions, "drawn" | { readonly not: string }>> = {
  max_new_tokens: "drawn",
  max_length: "drawn",
  min_length: "drawn",
  min_new_tokens: "drawn",
  max_time: "drawn",
  stop_strings: "drawn",
  eos_token_id: "drawn",
  pad_token_id: "drawn",
  bos_token_id: "drawn",
  do_sample: "drawn",
  num_beams: "drawn",
  num_return_sequences: "drawn",
  early_stopping: "drawn",
  length_penalty: "drawn",
  prompt_lookup_num_tokens: "drawn",
  max_matching_ngram_size: "drawn",
  assistant_model: "drawn",
  num_assistant_tokens: "drawn",
  num_assistant_tokens_schedule: "drawn",
  assistant_confidence_threshold: "drawn",
  seed: { not: "not Hugging Face's" },
  guidance_scale: "drawn",
  negative_prompt_ids: "drawn",
  negative_prompt_attention_mask: "drawn",
  sequence_bias: "drawn",
  repetition_penalty: "drawn",
  no_repeat_ngram_size: "drawn",
  bad_words_ids: "drawn",
  prefix_allowed_tokens_fn: "drawn",
  forced_bos_token_id: "drawn",
  forced_eos_token_id: "drawn",
  remove_invalid_values: "drawn",
  check_numerics: { not: "not Hugging Face's" },
  beam_rules: { not: "transformers 4.33's, for LAVIS; held to it in lavis.test.ts" },
  penalize_prompt: { not: "LAVIS's; held to its functions in lavis.test.ts" },
  exponential_decay_length_penalty: "drawn",
  suppress_tokens: "drawn",
  begin_suppress_tokens: "drawn",
  logits_processor: "drawn",
  stopping_criteria: "drawn",
  watermarking_config: "drawn",
  renormalize_logits: "drawn",
  temperature: "drawn",
  top_h: "drawn",
  top_k: "drawn",
  top_p: "drawn",
  min_p: "drawn",
  typical_p: "drawn",
  epsilon_cutoff: "drawn",
  eta_cutoff: "drawn",
  encoder_repetition_penalty: "drawn",
  encoder_no_repeat_ngram_size: "drawn",
  return_dict_in_generate: { not: "given with every call" },
  output_scores: "drawn",
  output_logits: "drawn",
  logprobs: { not: "not Hugging Face's; given with output_scores" },
  output_attentions: "drawn",
  output_hidden_states: "drawn",
  return_full_text: { not: "not Hugging Face's" },
  use_cache: "drawn",
};

/** Options with calls of their own, in each of which several are: states and maps (each alone: outputs.test.ts), and drafts. */
const TOGETHER: readonly string[] = [
  "output_attentions",
  "output_hidden_states",
  "prompt_lookup_num_tokens",
  "max_matching_ngram_size",
  "assistant_model",
  "num_assistant_tokens",
  "num_assistant_tokens_schedule",
  "assistant_confidence_threshold",
] satisfies (keyof GenerationOptions)[];

/** What must be drawn as often as any option. */
const EARLY_STOPPING = ["early_stopping=false", "early_stopping=true", 'early_stopping="never"'];

/** Calls, ops, places, indexes and steps of interventions. */
// biome-ignore format: a table
const CHANGES = [
  "forward", "greedy", "beams", "samples", "zero", "scale", "add", "set", "mean", "output", "input", "heads", "edges",
  "row", "token", "head", "channel", "from", "to", "all", "prompt", "steps",
];

export interface Coverage {
  /** What was drawn how often. */
  readonly lines: readonly string[];
  /** What a full run must have and this one has not. */
  readonly missing: readonly string[];
}

export function coverageOf(goldens: readonly GoldenJson[]): Coverage {
  const kinds = new Counts();
  const alone = new Counts();
  const all = new Counts();
  const changed = new Counts();
  for (const { asked, generations, spec, options } of goldens) {
    kinds.add(spec.model ?? "instructblip", spec.backbone);
    if (spec.legacy) kinds.add("legacy");
    if (options?.interpolate_pos_encoding) kinds.add("other sizes");
    for (const { name, kwargs } of generations) {
      if (!asked?.calls.includes(name)) continue;
      if (name.startsWith("single_")) alone.add(name.slice("single_".length));
      all.add(...Object.keys(kwargs));
      if ("early_stopping" in kwargs) all.add(`early_stopping=${JSON.stringify(kwargs.early_stopping)}`);
    }
    for (const { call, interventions } of asked?.interventions ?? []) {
      changed.add(call);
      for (const { op, at = "output", index = {}, steps = "all" } of interventions) {
        changed.add(op, at, ...Object.keys(index), typeof steps === "string" ? steps : "steps");
      }
    }
    for (const { assistant, kwargs } of asked?.drafts ?? []) {
      all.add(...Object.keys(kwargs), ...(assistant ? ["assistant_model"] : []));
    }
    for (const _ of Object.keys(asked?.states ?? {})) all.add("output_attentions", "output_hidden_states");
  }
  const drawn = Object.keys(OPTIONS).filter((name) => OPTIONS[name as keyof GenerationOptions] === "drawn");
  const single = drawn.filter((name) => !TOGETHER.includes(name));
  return {
    lines: [
      `drawn: ${kinds.of(kinds.names())}`,
      `options: ${all.of([...drawn, ...EARLY_STOPPING])}`,
      `by themselves: ${alone.of(single)}`,
      `interventions: ${changed.of(CHANGES)}`,
    ],
    missing: [
      ...["instructblip", "blip-2", "instructblipvideo", "llama", "t5", "opt", "legacy", "other sizes"].filter(
        (name) => !kinds.get(name),
      ),
      ...[...drawn, ...EARLY_STOPPING].filter((name) => !all.get(name)),
      ...single.filter((name) => all.get(name) && !alone.get(name)).map((name) => `${name} by itself`),
      ...CHANGES.filter((name) => !changed.get(name)).map((name) => `interventions: ${name}`),
    ],
  };
}

class Counts {
  readonly #counts = new Map<string, number>();

  add(...names: string[]): void {
    for (const name of names) this.#counts.set(name, this.get(name) + 1);
  }

  get(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  names(): string[] {
    return [...this.#counts.keys()].sort();
  }

  of(names: readonly string[]): string {
    const drawn = names.filter((name) => this.get(name));
    return drawn.map((name) => `${name} ${this.get(name)}`).join(", ");
  }
}
