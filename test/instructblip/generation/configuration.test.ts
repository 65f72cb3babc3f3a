/** Defaults, precedence and refusals of generate()'s options, and that all of Hugging Face's are listed. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { describe, expect, test } from "vitest";
import { decodingConfig } from "../../../src/instructblip/generation/configuration.ts";
import { logitsProcessors } from "../../../src/instructblip/generation/logits_process.ts";
import { GENERATION, type GenerationOptions } from "../../../src/instructblip/generation/options.ts";

const SETTING = {
  promptLength: 40,
  vocabulary: 100,
  max_position_embeddings: 2048,
  eos_token_id: 2,
  pad_token_id: null,
  cacheBytesPerToken: 2 ** 19,
};
const config = (options: object, setting = {}) =>
  decodingConfig(options as GenerationOptions, { ...SETTING, ...setting });

describe("defaults", () => {
  test("are Hugging Face's", () => {
    expect(config({})).toMatchObject({
      max_length: 60,
      min_length: 0,
      do_sample: false,
      num_beams: 1,
      top_k: 50,
      temperature: 1,
      length_penalty: 1,
      early_stopping: false,
      eos_token_id: [2],
      pad_token_id: 2, // unset: the first eos
      return_full_text: true,
      warnings: [],
    });
  });

  test("null switches off", () => {
    expect(config({ top_k: null, top_p: null, temperature: null, eos_token_id: null })).toMatchObject({
      top_k: 0,
      top_p: 1,
      temperature: 1,
      eos_token_id: [],
      pad_token_id: null,
    });
  });

  test("20 new tokens, or as many as there are positions", () => {
    expect(config({}, { max_position_embeddings: 50 }).max_length).toBe(50);
    expect(config({ max_new_tokens: 20 }, { max_position_embeddings: 50 }).max_length).toBe(60);
    // Nobody spoke of max_length, so it is not max_length that is wrong.
    expect(() => config({}, { max_position_embeddings: 30 })).toThrow(/take 40 tokens; this model was trained for 30/);
  });
});

describe("precedence", () => {
  test("max_new_tokens beats max_length, with a warning", () => {
    const both = config({ max_new_tokens: 3, max_length: 50 });
    expect(both.max_length).toBe(43);
    expect(both.warnings.join()).toContain("max_length");
  });

  test("min_new_tokens beats min_length, with a warning", () => {
    const both = config({ min_new_tokens: 3, min_length: 60 });
    expect(both).toMatchObject({ min_length: 43 });
    expect(both.warnings.join()).toContain("min_length");
  });

  test("what has no effect is warned of", () => {
    expect(config({ top_p: 0.9 }).warnings.join()).toContain("top_p");
    expect(config({ length_penalty: 2 }).warnings.join()).toContain("length_penalty");
    expect(config({ encoder_no_repeat_ngram_size: 2 }).warnings.join()).toContain("embeddings");
    expect(config({ top_p: 0.9, do_sample: true, num_beams: 2, length_penalty: 0 }).warnings).toEqual([]);
    // Given as it is without being given.
    const defaults = {
      temperature: 1,
      top_k: 50,
      top_p: 1,
      early_stopping: false,
      length_penalty: 1,
      output_scores: false,
    };
    expect(config(defaults).warnings).toEqual([]);
  });

  // What transformers 5.18 lets pass, with or without a warning of its own.
  test.each<[GenerationOptions, RegExp]>([
    [{ min_length: 61 }, /min_length is 61, but the maximum length ends an answer at 60/],
    [{ min_new_tokens: 21 }, /min_new_tokens is 21, but the maximum length ends an answer at 20/],
    [{ max_new_tokens: 4, min_new_tokens: 5 }, /ends an answer at 4/],
    [{ eos_token_id: -1 }, /eos_token_id: no token has the id -1/],
    [{ eos_token_id: [2, 100] }, /eos_token_id: no token has the id 100/],
    [{ pad_token_id: -1 }, /pad_token_id/],
    [{ suppress_tokens: [3, 100] }, /suppress_tokens: no token has the id 100/],
    [{ begin_suppress_tokens: [-1] }, /begin_suppress_tokens/],
    [{ temperature: -1 }, /temperature has no effect: do_sample/],
    [{ top_p: 7 }, /top_p has no effect: do_sample/],
    [{ top_k: -1 }, /top_k has no effect: do_sample/],
    [{ seed: 3 }, /seed has no effect: do_sample/],
    [{ do_sample: true, top_p: 1.01 }, /top_p has no effect: it is above 1/],
    [{ do_sample: true, typical_p: 1.5 }, /typical_p has no effect: it is above 1/],
    [{ do_sample: true, epsilon_cutoff: 1 }, /epsilon_cutoff has no effect: it is not between/],
    [{ do_sample: true, eta_cutoff: -1 }, /eta_cutoff has no effect: it is not between/],
    [{ encoder_repetition_penalty: -1 }, /encoder_repetition_penalty has no effect/],
    [{ negative_prompt_attention_mask: [[1]] }, /guidance_scale is 1/],
  ])("%o is taken, with a warning", (options, says) => {
    const { warnings } = config(options);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(says);
  });

  test("what makes no difference leaves no processor", () => {
    const names = { epsilon_cutoff: 1, eta_cutoff: -1, top_p: 2, typical_p: 3, top_k: 0 };
    expect(logitsProcessors(config({ do_sample: true, ...names }))).toEqual([]);
    expect(config({ suppress_tokens: [3, 100], begin_suppress_tokens: [-1] })).toMatchObject({
      suppress_tokens: [3],
      begin_suppress_tokens: [],
    });
  });

  test("a prompt of embeddings alone is not what penalties count", () => {
    const legacy = { promptLength: 0, embeddedLength: 40 };
    expect(config({ repetition_penalty: 2 }, legacy).warnings.join()).toContain(
      "repetition_penalty counts new tokens only",
    );
    expect(config({ no_repeat_ngram_size: 2 }, legacy).warnings.join()).toContain("counts new tokens only");
    expect(config({ no_repeat_ngram_size: 2 }).warnings).toEqual([]);
  });

  test("the likeliest token alone makes up a top_p of 0", () => {
    const scores = Float32Array.of(1, 3, 2);
    for (const process of logitsProcessors(config({ do_sample: true, top_p: 0, top_k: 0 }))) process([[1]], [scores]);
    expect([...scores]).toEqual([Number.NEGATIVE_INFINITY, 3, Number.NEGATIVE_INFINITY]);
  });
});

describe("refused by name", () => {
  const nan = Number.NaN;
  const range: [string, unknown[]][] = [
    ["max_new_tokens", [0, -1, 1.5, nan, Number.POSITIVE_INFINITY, "10", 1e9]],
    ["max_length", [40, 0, 1e9]],
    ["min_length", [-1, 0.5]],
    ["min_new_tokens", [-1]],
    ["max_time", [0, -1, nan]],
    ["temperature", [-1, nan, "1"]],
    ["top_p", [-0.1, nan, "1"]],
    ["top_k", [-1, 1.5, true]],
    ["top_h", [0, 1.1]],
    ["min_p", [-0.1, 1.1]],
    ["typical_p", [0, [1]]],
    ["epsilon_cutoff", [nan, {}]],
    ["eta_cutoff", ["1"]],
    ["repetition_penalty", [0, -1, nan, Number.POSITIVE_INFINITY]],
    ["num_beams", [0, 1.5]],
    ["num_return_sequences", [0, 2]],
    ["length_penalty", [nan, "1"]],
    ["early_stopping", ["always", 1]],
    ["beam_rules", ["4.28", 5]],
    ["penalize_prompt", ["false", [0.5], [10_000]]],
    ["seed", [-1, 0.5, 2 ** 53]],
    ["stop_strings", ["", [], [""], [1], new Array(10_000).fill("a")]],
    ["eos_token_id", [0.5, "2", [2, nan]]],
    ["pad_token_id", [0.5, [1]]],
    ["bad_words_ids", [[], [[]], [3], [[100]]]],
    ["sequence_bias", [[], [[3]], [[[3], "x"]], [[[100], 1]]]],
    ["suppress_tokens", [["3"], 3]],
    ["exponential_decay_length_penalty", [[1], [0.5, 1], 3]],
    ["do_sample", ["yes", 1]],
    ["prefix_allowed_tokens_fn", [[1]]],
  ];
  test.each(range.flatMap(([name, values]) => values.map((value) => [name, value] as const)))(
    "%s %j",
    (name, value) => {
      const thrown = () => config({ do_sample: name !== "num_return_sequences", [name]: value });
      expect(thrown).toThrow(expect.objectContaining({ code: "PARAM_RANGE" }));
      expect(thrown).toThrow(name);
    },
  );

  test("temperature 0 only where it would be used", () => {
    expect(() => config({ temperature: 0, do_sample: true })).toThrow(/above 0[\s\S]*do_sample: false/);
    expect(config({ temperature: 0 }).temperature).toBe(0);
    expect(config({ temperature: 1e-9, do_sample: true }).temperature).toBe(1e-9);
  });

  test("more returned sequences than beams, or any without beams and sampling", () => {
    expect(() => config({ num_beams: 3, num_return_sequences: 4 })).toThrow("num_return_sequences");
    expect(config({ num_beams: 3, num_return_sequences: 3 }).num_return_sequences).toBe(3);
    expect(config({ do_sample: true, num_return_sequences: 9 }).num_return_sequences).toBe(9);
  });

  test("a thousand beams, with the memory they would take", () => {
    const thrown = () => config({ num_beams: 1000, max_new_tokens: 24 });
    expect(thrown).toThrow(expect.objectContaining({ code: "BEAM_LIMIT" }));
    expect(thrown).toThrow("31.3 GiB");
  });

  test("forcing a token that is suppressed", () => {
    expect(() => config({ suppress_tokens: [5, 2], forced_eos_token_id: 2 })).toThrow("forced_eos_token_id");
  });

  test("an unknown name, with the nearest right one", () => {
    const thrown = () => config({ max_new_token: 3 });
    expect(thrown).toThrow(expect.objectContaining({ code: "UNKNOWN_OPTION" }));
    expect(thrown).toThrow("max_new_tokens");
    expect(() => config({ constructor: 3 })).toThrow(expect.objectContaining({ code: "UNKNOWN_OPTION" }));
  });
});

interface Known {
  readonly generation_config: readonly string[];
  readonly generate: readonly string[];
  readonly defaults: Readonly<Record<string, unknown>>;
}
const HF: Known = JSON.parse(
  readFileSync(new URL("../../golden/generation/data/generation_config.json", import.meta.url), "utf8"),
);

describe("every name that Hugging Face's generate() and DecodingConfig have", () => {
  /** Taken, with a value that does something. */
  const taken: Readonly<Record<string, unknown>> = {
    assistant_confidence_threshold: 0.5,
    assistant_model: { language_model: {} },
    bad_words_ids: [[3]],
    begin_suppress_tokens: [3],
    bos_token_id: 1,
    do_sample: true,
    early_stopping: "never",
    encoder_no_repeat_ngram_size: 2,
    encoder_repetition_penalty: 2,
    eos_token_id: [2, 3],
    epsilon_cutoff: 0.1,
    eta_cutoff: 0.1,
    exponential_decay_length_penalty: [1, 2],
    forced_bos_token_id: 3,
    forced_eos_token_id: [3, 4],
    guidance_scale: 2,
    length_penalty: -1,
    logits_processor: [() => {}],
    max_length: 55,
    max_matching_ngram_size: 3,
    max_new_tokens: 5,
    max_time: 10,
    min_length: 50,
    min_new_tokens: 2,
    min_p: 0.1,
    negative_prompt_attention_mask: [[1]],
    negative_prompt_ids: [[3]],
    no_repeat_ngram_size: 2,
    num_assistant_tokens: 4,
    num_assistant_tokens_schedule: "heuristic_transient",
    num_beams: 3,
    num_return_sequences: 3,
    output_attentions: true,
    output_hidden_states: true,
    output_logits: true,
    output_scores: true,
    pad_token_id: 4,
    prefix_allowed_tokens_fn: () => [3],
    prompt_lookup_num_tokens: 3,
    remove_invalid_values: true,
    renormalize_logits: true,
    repetition_penalty: 2,
    return_dict_in_generate: true,
    sequence_bias: [[[3], 1]],
    stop_strings: "a",
    stopping_criteria: [() => false],
    suppress_tokens: [3],
    temperature: 0.5,
    top_h: 0.5,
    top_k: 5,
    top_p: 0.5,
    typical_p: 0.5,
    use_cache: false,
    watermarking_config: { bias: 1 },
  };
  /** Given to the model's generate() rather than to the search. */
  const elsewhere = ["generation_config", "streamer"];
  /** Taken, and without effect here or in HF. */
  const harmless: Readonly<Record<string, unknown>> = {
    _from_model_config: true,
    assistant_lookbehind: 10,
    disable_compile: true,
    target_lookbehind: 10,
    transformers_version: "5.18.0",
  };
  /** Refused for what they are: a value, and what the message has. */
  const refused: Readonly<Record<string, [value: unknown, says: RegExp]>> = {
    assistant_early_exit: [4, /after some layers/],
    assistant_ensemble_weight: [0.5, /own/],
    cache_config: [{}, /cache/],
    cache_implementation: ["static", /cache/],
    compile_config: [{}, /from_pretrained's compile/],
    constraints: [[{}], /prefix_allowed_tokens_fn/],
    continuous_batching_config: [{}, /batch/],
    custom_generate: ["owner/name", /logits_processor and stopping_criteria/],
    decoder_start_token_id: [0, /text_config/],
    diversity_penalty: [0.5, /num_beams/],
    dola_layers: ["low", /removed/],
    force_words_ids: [[[3]], /prefix_allowed_tokens_fn/],
    inputs: [[[1]], /input_ids/],
    is_assistant: [true, /assistant_model/],
    low_memory: [true, /no longer/],
    max_cache_len: [100, /cache/],
    num_beam_groups: [2, /num_beams/],
    penalty_alpha: [0.6, /removed/],
    prefill_chunk_size: [64, /pieces/],
    speculation_type: ["x", /prompt_lookup/],
    synced_gpus: [true, /one device/],
    token_healing: [true, /as it is/],
    use_mtp: [true, /one token at a time/],
  };

  test("is in one of these lists, and no other name is", () => {
    const listed = [taken, harmless, refused].flatMap((list) => Object.keys(list));
    expect([...listed, ...elsewhere].sort()).toEqual([...HF.generation_config, ...HF.generate].sort());
  });

  test.each(Object.entries(taken))("%s is taken", (name, value) => {
    const partner =
      name === "negative_prompt_attention_mask"
        ? { negative_prompt_ids: [[3]] }
        : name === "num_return_sequences"
          ? { do_sample: true }
          : {};
    // Like HF's, our prompts have a BOS already, and our cache is always used.
    const effect = !["bos_token_id", "use_cache"].includes(name);
    expect(JSON.stringify(config({ [name]: value, ...partner })) !== JSON.stringify(config(partner))).toBe(effect);
    expect(config({ [name]: null })).toBeDefined();
    const wrong = typeof value === "string" ? 3 : "x";
    if (name !== "stop_strings") expect(() => config({ [name]: wrong, ...partner })).toThrow(name);
    else expect(() => config({ [name]: 3 })).toThrow(name);
  });

  test.each(Object.entries(harmless))("%s changes nothing", (name, value) => {
    expect(config({ [name]: value })).toEqual(config({}));
  });

  test.each(Object.entries(refused))("%s is refused for what it is", (name, [value, says]) => {
    const thrown = () => config({ [name]: value }, { decoder_start_token_id: 1 });
    expect(thrown).toThrow(expect.objectContaining({ code: "UNSUPPORTED_OPTION" }));
    expect(thrown).toThrow(says);
    expect(thrown).toThrow(name);
    expect(config({ [name]: null })).toEqual(config({}));
  });

  test("decoder_start_token_id may be said as it is, and of a model that has none", () => {
    expect(config({ decoder_start_token_id: 3 }, { decoder_start_token_id: 3 })).toEqual(config({}));
    expect(config({ decoder_start_token_id: 3 })).toEqual(config({}));
  });

  test("Hugging Face's defaults, all given, are ours", () => {
    expect(Object.keys(HF.defaults).length).toBeGreaterThan(25);
    const { max_length, ...defaults } = HF.defaults;
    expect(max_length).toBe(20); // of new tokens, where nothing is given: tested above
    const { warnings, ...made } = config(defaults);
    const { warnings: _, ...ours } = config({});
    expect(made).toEqual(ours);
    for (const [name, value] of Object.entries(defaults)) {
      if (name in ours && value !== null) expect(ours[name as keyof typeof ours], name).toEqual(value);
    }
    expect(warnings.every((line) => line.includes("has no effect"))).toBe(true);
  });
});

describe("a row of the table", () => {
  test("needs an option that there is", () => {
    for (const { row } of Object.values(GENERATION))
      if (row.needs) expect(Object.keys(GENERATION)).toContain(row.needs);
  });

  test("has a type and a doc comment that editors show for the option", () => {
    const files = ["options", "watermark/watermark_options"].map((name) =>
      fileURLToPath(new URL(`../../../src/instructblip/generation/${name}.ts`, import.meta.url)),
    );
    const program = ts.createProgram(files, {
      allowImportingTsExtensions: true,
      noEmit: true,
      strict: true,
      target: ts.ScriptTarget.ES2022,
      // No option has a type of the DOM or of a package, which take most of the time.
      lib: ["lib.es2022.d.ts"],
      types: [],
    });
    const checker = program.getTypeChecker();
    const all = files.flatMap((file) =>
      checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)!)!),
    );
    const shown = (name: string) =>
      checker
        .getPropertiesOfType(checker.getDeclaredTypeOfSymbol(all.find((one) => one.name === name)!))
        .map((one) => ({
          name: one.name,
          type: checker.typeToString(checker.getTypeOfSymbol(one)),
          documented: ts.displayPartsToString(one.getDocumentationComment(checker)) !== "",
        }));
    const options = shown("GenerationOptions");
    expect(options.map(({ name }) => name)).toEqual(Object.keys(GENERATION));
    expect(options).toContainEqual({ name: "top_p", type: "number | null | undefined", documented: true });
    expect(shown("WatermarkingConfig")).toContainEqual({
      name: "seeding_scheme",
      type: '"lefthash" | "selfhash" | undefined',
      documented: true,
    });
    for (const one of [...options, ...shown("WatermarkingConfig"), ...shown("SynthIDTextWatermarkingConfig")]) {
      expect(one).toMatchObject({ documented: true });
    }
  });
});
