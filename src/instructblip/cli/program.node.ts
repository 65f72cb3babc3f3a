/**
 * The command line's grammar: commands, options, help, exit codes. What a command does is in its own file, imported only
 * when it runs, so that `--help` and mistyped options answer at once.
 */
import { readFileSync } from "node:fs";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { CACHE_DTYPES, parseStorage, STORAGE_DTYPES } from "../../modules/storage_dtype.ts";
import { ENV } from "../../tensor/env.ts";
import { METRICS } from "../evaluation/metrics.ts";
import type { Shard } from "../evaluation/part.ts";
import { PRESETS } from "../evaluation/presets.ts";
import type { GenerationOptions } from "../generation/configuration.ts";
import { describeError, EXIT } from "./format.ts";
import type { Run } from "./session.node.ts";
import { say, sayStack } from "./terminal.node.ts";

const EXIT_CODES = `
Exit codes:
  ${EXIT.ok}    everything asked for was done
  ${EXIT.refused}    the model, an image, a prompt or an option cannot be used; stderr says why
  ${EXIT.usage}    the command line is wrong
  ${EXIT.someFailed}    it ran to the end, and some of many requests or questions failed; their lines say why
  ${EXIT.internal}   a mistake of this program; please report it
  ${EXIT.sigint}, ${EXIT.sigterm}, ${EXIT.sigpipe}  interrupted, terminated, or the reader of stdout has gone`;

const ENVIRONMENT = `
Environment:
${[
  ...Object.entries(ENV),
  ["INSTRUCTBLIP_DEBUG", "1 prints the stack of an error"],
  ["NO_COLOR", "no colours on a terminal"],
]
  .map(([name, what]) => `  ${name}\n      ${what}`)
  .join("\n")}`;

const SHARDS = `  --shard i/n is the i-th of n interleaved parts, i from 0 to n-1: as $SLURM_ARRAY_TASK_ID of an array 0-7, as
  $JOB_COMPLETION_INDEX of a Kubernetes Indexed Job, or by GNU parallel:
    $ seq 0 7 | parallel instructblip … --shard {}/8 --out part-{}.jsonl --resume`;

const COLUMN = "\n              ";
const METRICS_HELP = Object.entries(METRICS)
  .map(([name, { meaning }]) => `${name}: ${meaning}`)
  .join(COLUMN);
const PRESETS_HELP = Object.keys(PRESETS)
  .map((name, i) => (i === 0 ? "" : i % 5 === 0 ? `,${COLUMN}` : ", ") + name)
  .join("");

const EXAMPLES = {
  top: `
Examples:
  $ instructblip generate --model vicuna-7b --image cat.jpg --prompt "What is unusual about this image?"
  $ instructblip evaluate --model vicuna-7b --task gqa.json --data gqa.jsonl
  $ instructblip inspect vicuna-7b
  $ instructblip devices
  $ instructblip demo

An option of a command is explained by the command's own help: instructblip generate --help
In the repository write npm run -s instructblip -- in place of instructblip; installed as a package, npx instructblip.`,
  generate: `
Examples:
  One answer, as it is made:
    $ instructblip generate --model vicuna-7b --image cat.jpg --prompt "What is this?" --max-new-tokens 64

  The best of five beams, as InstructBLIP's authors ask; with --num-return-sequences 3 the three best, one a line:
    $ instructblip generate --model vicuna-7b --image cat.jpg --prompt "What is this?" --num-beams 5 --length-penalty -1

  One answer as JSON, on one line: {"id", "sequences", "text", "timing"}, and with beams "sequences_scores"
    $ instructblip generate --model vicuna-7b --image cat.jpg --prompt "What is this?" --json
  sequences   token ids as Hugging Face's generate() returns them, image tokens and prompt first
  text        the sequences decoded without special tokens
  timing      load_ms: model and processor; preprocess_ms: pictures and prompts; time_to_first_token_ms and total_ms:
              since the request began, without loading; new_tokens: added to each row;
              tokens_per_second: of all rows, after the first token

  Many requests, the model loaded once; one line of JSON in, one line out, in the same order:
    $ instructblip generate --model vicuna-7b --requests questions.jsonl --json > answers.jsonl
  A request: {"id": "q1", "images": ["cat.jpg"], "prompts": ["What is this?"], "generation": {"max_new_tokens": 64}}
  Images are files, seen from the file of requests, or URLs.
  Several images and prompts make one batch: the first prompt is asked about the first image, and so on. "generation"
  takes generate()'s options by Hugging Face's names. File names are relative to the folder of the requests (to the
  working directory when they come from a pipe). Blank lines are skipped. A request that cannot be answered gives
  {"id", "error": {"code", "message"}}, the run goes on, and the exit code is ${EXIT.someFailed} at the end.
  Ranked instead: {"id": "q2", "images": ["cat.jpg"], "prompts": ["Is it asleep?"], "candidates": ["yes", "no"]}
  "candidates" are for all prompts, or a list for each. The line has "ranked" instead of "sequences": each prompt's
  candidates, likeliest first, with the negative log-likelihood of all tokens (sum) and of one on average (mean).

  Spread over machines, and gone on with after an interruption:
    $ instructblip generate --model vicuna-7b --requests questions.jsonl --json --shard 2/8 --out part-2.jsonl --resume
${SHARDS}
  --out never overwrites a file; with --resume it adds to it the requests whose ids are not there yet. A last line that
  was torn is done again, a failed request is not: remove its line to have it tried once more.
${EXIT_CODES}`,
  evaluate: `
Examples:
  Accuracy over a set of questions, in figures for people or (--json) as one line of JSON:
    $ instructblip evaluate --model vicuna-7b --task gqa.json --data gqa.jsonl --images gqa/images
  In parts, kept as they come, and added up:
    $ instructblip evaluate --model vicuna-7b --task gqa.json --data gqa.jsonl --shard 2/8 --out part-2.jsonl --resume
    $ instructblip merge part-*.jsonl
${SHARDS}

A task is a file such as
  {"prompt": "Question: {question} Short answer:", "generation": {"max_new_tokens": 10}, "metric": "exact_match_vqa"}
  prompt      {field} is a question's field; of an array {field} is all joined by commas, {field:30} the first 30,
              {field:letters} (a) one (b) two; {{ and }} are braces
  generation  generate()'s options by Hugging Face's names
  candidates  to rank instead of generating: ["yes", "no"]; [["yes", "true"], ["no", "false"]] if some mean the same;
              {"field": "choices"} of each question; {"file": "answers.txt"} beside the task, one on each line
  ranking     {"reduction": "sum" or "mean" of a candidate's tokens, "segment_size": how many at once,
              "eos": whether each ends with the end token (default: as the tokenizer has it; LLaMA's has not)}
  metric      ${METRICS_HELP}
  preset      prompt, generation and metric as published, each of which the task may replace:
              ${PRESETS_HELP}
  name        for the report

A line of data: {"id": 1, "image": "1.jpg", "question": "What is this?", "answers": ["a cat"], "kind": "what"}
  image       a URL, or a file in --images (default: beside the data); for InstructBLIP-Video an array, the frames
  answers     what counts as right: one or more, for VQA accuracy every annotator's
  kind        may be absent; questions of a kind are scored together as well
  All lines are checked before the model is loaded.

A question that cannot be answered is not scored but counted as failed, and makes the exit code ${EXIT.someFailed}.
--out takes the settings and every prediction as JSON lines, for any other evaluation to score.
${EXIT_CODES}`,
  merge: `
The parts that evaluate --out has written, all of them and complete, give the figures that one run would have given.
Parts of generate --out need no merging: cat joins them.

Examples:
  $ instructblip merge part-0.jsonl part-1.jsonl part-2.jsonl
  $ instructblip merge part-*.jsonl --json
${EXIT_CODES}`,
  trace: `
Writes float32 tensors under Hugging Face's names: pixel_values, vision_outputs.last_hidden_state,
qformer_outputs.last_hidden_state, image_features (projected into the language model) and logits; with --all also
the output of every module under its path in the checkpoint (a second run of a module in the pass as PATH#2).
The file appears whole or not at all.

Examples:
  $ instructblip trace --model vicuna-7b --image cat.jpg --prompt "What is this?" --out trace.safetensors
  $ instructblip trace --model vicuna-7b --image cat.jpg --prompt "What is this?" --out trace.safetensors --all
${EXIT_CODES}`,
  attention: `
The Q-Former's queries look at the picture in every second of its layers. A sheet shows how much weight each query gives
to each patch, all in one colour scale, and says what it gives to the class token, which lies nowhere in the picture.
Layers, heads and queries are counted from 0. With one --query, its layers (and with --head all its heads) are on one
sheet. A --scale-max makes sheets comparable, and shows what else there is beside one patch that gets nearly everything.
The language model is not loaded. Of InstructBLIP-Video --image is one frame: it looks at each by itself. BLIP-2 looks at a
picture in one way whatever is asked, so it takes no --prompt.

Examples:
  sheet.layer-0.png, sheet.layer-2.png, …:
    $ instructblip attention --model vicuna-7b --image cat.jpg --prompt "What is this?" --out sheet.png
  One layer, with labels that can be searched, and heads apart:
    $ instructblip attention --model vicuna-7b --image cat.jpg --prompt "What is this?" --layer 10 --out sheet.svg
    $ instructblip attention --model vicuna-7b --image cat.jpg --prompt "What is this?" --query 7 --head all --out q7.png
  The numbers: {"image", "prompt", "grid": [rows, columns], "layers": [{"layer", "head", "queries": [{"query",
  "class_token", "patches"}]}]}, patches row by row, "head" "mean" unless --head is given:
    $ instructblip attention --model vicuna-7b --image cat.jpg --prompt "What is this?" --json
${EXIT_CODES}`,
  inspect: `
Reads the config and the headers of the weights, not the weights. The memory plan is for the adapter that would be used;
without one it is for the least that WebGPU guarantees.

Examples:
  $ instructblip inspect vicuna-7b
  $ instructblip inspect vicuna-7b --json --tensors
${EXIT_CODES}`,
  demo: `
It answers in words as they are made; the pictures and the model (6.4 MB) lie in this package.

Examples:
  $ instructblip demo
${EXIT_CODES}`,
  setup: `
A GPU's own driver is used if there is one. Only where no adapter is found is anything installed: as root on Debian and
its kin Mesa's lavapipe, by apt-get; else on x64 Linux SwiftShader, which is downloaded (66 MB) into a cache folder.

Examples:
  $ instructblip setup --check
${EXIT_CODES}`,
  devices: `
Without an adapter the exit code is ${EXIT.refused}.

Examples:
  $ instructblip devices
  $ instructblip devices --json
${EXIT_CODES}`,
};

/** An option's value is read once: a second one would silently win over the first. */
function once<T>(read: (text: string) => T): (text: string, previous: T | undefined) => T {
  return (text, previous) => {
    if (previous !== undefined) throw new InvalidArgumentError("It is given twice.");
    return read(text);
  };
}

const text = once((value) => value);

const fileName = once((value) => {
  if (value === "") throw new InvalidArgumentError("It must not be empty.");
  return value;
});

const whole = (low: number) =>
  once((value) => {
    const number = Number(value);
    if (/^[0-9]+$/.test(value) && Number.isSafeInteger(number) && number >= low) return number;
    throw new InvalidArgumentError(`It must be a whole number of at least ${low}.`);
  });

const positive = once((value) => {
  const number = Number(value);
  if (value.trim() !== "" && Number.isFinite(number) && number > 0) return number;
  throw new InvalidArgumentError("It must be a number above 0.");
});

const real = once((value) => {
  const number = Number(value);
  if (value.trim() !== "" && Number.isFinite(number)) return number;
  throw new InvalidArgumentError("It must be a number.");
});

const earlyStopping = once((value) => {
  if (value === "never") return value;
  if (value === "true" || value === "false") return value === "true";
  throw new InvalidArgumentError("It must be true, false or never.");
});

const jsonObject = once((value) => {
  try {
    const parsed: unknown = JSON.parse(value);
    if (typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)) return parsed;
  } catch {}
  throw new InvalidArgumentError('It must be an object as JSON: {} or {"bias": 2.5}.');
});

const ids = once((value) => {
  if (/^[0-9]+(,[0-9]+)*$/.test(value)) {
    const list = value.split(",").map(Number);
    if (list.every(Number.isSafeInteger)) return list;
  }
  throw new InvalidArgumentError("It must be token ids, separated by commas: 2 or 2,29871.");
});

const headChoice = once((value): number | "all" => {
  if (value === "all") return value;
  if (/^[0-9]{1,6}$/.test(value)) return Number(value);
  throw new InvalidArgumentError("It must be a whole number of at least 0, or all.");
});

const shard = once((value): Shard => {
  const [i, n] = /^[0-9]+\/[0-9]+$/.test(value) ? value.split("/").map(Number) : [];
  if (Number.isSafeInteger(n) && i < n) return { i, n };
  throw new InvalidArgumentError("It must be i/n with i from 0 to n-1: 0/8 is the first of eight.");
});

/** Generation options: flag, commander's name for it, Hugging Face's, value, meaning. */
const GENERATION = [
  ["--max-new-tokens <n>", "maxNewTokens", "max_new_tokens", whole(1), "tokens in the answer, at most (default: 20)"],
  ["--min-new-tokens <n>", "minNewTokens", "min_new_tokens", whole(0), "tokens before the answer may end"],
  ["--max-length <n>", "maxLength", "max_length", whole(1), "tokens of image, prompt and answer together, at most"],
  ["--min-length <n>", "minLength", "min_length", whole(0), "tokens of all three before the answer may end"],
  [
    "--repetition-penalty <x>",
    "repetitionPenalty",
    "repetition_penalty",
    positive,
    "above 1: tokens already there become less likely",
  ],
  ["--eos-token-id <ids>", "eosTokenId", "eos_token_id", ids, "token ids that end the answer (default: the config's)"],
  ["--pad-token-id <id>", "padTokenId", "pad_token_id", whole(0), "fills rows of a batch that ended early"],
  ["--num-beams <n>", "numBeams", "num_beams", whole(1), "sequences followed side by side (default: 1)"],
  ["--length-penalty <x>", "lengthPenalty", "length_penalty", real, "beams: above 0 favours long answers (default: 1)"],
  [
    "--early-stopping <when>",
    "earlyStopping",
    "early_stopping",
    earlyStopping,
    "beams: true, false or never (default: false)",
  ],
  [
    "--num-return-sequences <n>",
    "numReturnSequences",
    "num_return_sequences",
    whole(1),
    "answers, one a line (default: 1)",
  ],
  [
    "--no-repeat-ngram-size <n>",
    "noRepeatNgramSize",
    "no_repeat_ngram_size",
    whole(0),
    "no run of n tokens comes twice",
  ],
  ["--do-sample", "doSample", "do_sample", undefined, "draw tokens by their probability"],
  ["--seed <n>", "seed", "seed", whole(0), "makes --do-sample repeatable"],
  [
    "--temperature <x>",
    "temperature",
    "temperature",
    positive,
    "sampling: below 1 safer, above 1 more varied (default: 1)",
  ],
  ["--top-k <n>", "topK", "top_k", whole(0), "sampling: only the n likeliest tokens (default: 50; 0: all)"],
  ["--top-p <x>", "topP", "top_p", positive, "sampling: only the likeliest tokens that make up x of the whole"],
  ["--min-p <x>", "minP", "min_p", positive, "sampling: only tokens at least x times as likely as the likeliest"],
  ["--typical-p <x>", "typicalP", "typical_p", positive, "sampling: only the most typical tokens that make up x"],
  [
    "--guidance-scale <x>",
    "guidanceScale",
    "guidance_scale",
    real,
    "above 1: away from answers without picture and prompt",
  ],
  [
    "--watermarking-config <json>",
    "watermarkingConfig",
    "watermarking_config",
    jsonObject,
    "mark the answer by a green list ({} for the usual one) or SynthID",
  ],
  ["--stop-string <text>", "stopString", "stop_strings", text, "ends the answer where this text appears"],
  ["--max-time <seconds>", "maxTime", "max_time", positive, "begin no further token after this"],
] as const;

/** A number type, or several by part. */
const dtypeOption = () =>
  new Option(
    "--dtype <type>",
    `how weights are stored on the GPU: ${STORAGE_DTYPES.join(", ")}; by part: language_model=int4,vision_model=f16`,
  )
    .argParser((value) => {
      try {
        return parseStorage(value);
      } catch (error) {
        throw new InvalidArgumentError((error as Error).message);
      }
    })
    .default("auto", "auto: as in the checkpoint");

const vicunaOption = () =>
  new Option("--fix-vicuna-token-ids", "the tokenizer's ids: eos 2, pad 32000 (published configs end no answer)");

const cacheDtypeOption = () =>
  new Option("--cache-dtype <type>", "how keys and values are stored: f32, or f16 in half the memory, rounded")
    .choices(CACHE_DTYPES)
    .default("f32");

const cacheOption = () =>
  new Option(
    "--quantized-cache [folder]",
    "keep int8 and int4 weights for the next start, in a folder (default: in ~/.cache/instructblip-webgpu)",
  );

const shardOption = () => new Option("--shard <i/n>", "only the i-th of n parts, counted from 0").argParser(shard);
const outOption = () => new Option("--out <file.jsonl>", "add the lines to a file as they come").argParser(fileName);
const resumeOption = () => new Option("--resume", "go on with --out where an earlier run stopped");

const modelOption = () =>
  new Option("--model <folder>", "folder of a checkpoint, or owner/name on the Hugging Face Hub").argParser(fileName);

/** Options that must be there. Not commander's mandatory options, which hide a mistyped `--modl` behind a missing `--model`. */
function needs(command: Command, ...names: readonly string[]): void {
  for (const option of command.options) {
    if (names.includes(option.attributeName()) && command.getOptionValue(option.attributeName()) === undefined) {
      command.error(`error: required option '${option.flags}' not specified`, { exitCode: EXIT.usage });
    }
  }
}

/** What a program hands back besides what it throws. */
export interface Handlers {
  /** Help and version. */
  readonly print: (text: string) => void;
  /** The exit code of a command that ran, if it is not 0. */
  readonly done: (exitCode: number) => void;
}

/** The program. It never exits the process: errors are thrown, and help is a CommanderError with exit code 0. */
export function createProgram(run: Run, { print, done }: Handlers): Command {
  const { terminal } = run;
  const program = new Command("instructblip")
    .description("Answers questions about images with InstructBLIP, on WebGPU.")
    .version(version(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand("help [command]", "print the help of a command")
    .showHelpAfterError("    hint: --help explains the options and shows examples")
    .exitOverride()
    .configureOutput({
      writeOut: print,
      writeErr: (message) => say(terminal, message.trimEnd()),
      getOutHelpWidth: () => (terminal.outIsTerminal ? terminal.columns : 120),
      getErrHelpWidth: () => (terminal.errIsTerminal ? terminal.columns : 120),
    })
    .addHelpText("after", EXAMPLES.top + "\n" + EXIT_CODES + "\n" + ENVIRONMENT);

  const generate = program
    .command("generate")
    .description("answer a question about an image, or many")
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(new Option("--image <file>", "a picture, or the URL of one").argParser(fileName))
    .addOption(new Option("--prompt <text>", "the question or instruction").argParser(text))
    .addOption(
      new Option("--requests <file.jsonl>", "many requests, one a line; - for stdin; with --json")
        .argParser(fileName)
        .conflicts(["image", "prompt", "negativePrompt", ...GENERATION.map(([, name]) => name)]),
    )
    .addOption(shardOption())
    .addOption(outOption())
    .addOption(resumeOption())
    .option("--json", "print JSON instead of text");
  for (const [flags, , , parse, meaning] of GENERATION) {
    const option = new Option(flags, meaning);
    generate.addOption(parse ? option.argParser(parse as (value: string, previous: unknown) => unknown) : option);
  }
  generate
    .addOption(
      new Option(
        "--negative-prompt <text>",
        "what --guidance-scale moves away from (default: the prompt's last token)",
      ).argParser(text),
    )
    .addOption(dtypeOption())
    .addOption(cacheDtypeOption())
    .addOption(cacheOption())
    .addOption(vicunaOption())
    .addHelpText("after", EXAMPLES.generate)
    .action(async (options, command) => {
      if (["shard", "out", "resume"].some((name) => options[name] !== undefined)) needs(command, "requests");
      if (options.requests !== undefined) {
        needs(command, "model", "json");
        if (options.resume) needs(command, "out");
        const { runRequests } = await import("./generate.node.ts");
        return done(await runRequests(options, run));
      }
      needs(command, "model", "image", "prompt");
      if (options.negativePrompt !== undefined) needs(command, "guidanceScale");
      const given = GENERATION.filter(([, name]) => options[name] !== undefined);
      const generation: GenerationOptions = Object.fromEntries(given.map(([, name, key]) => [key, options[name]]));
      const { runGenerate } = await import("./generate.node.ts");
      await runGenerate({ ...options, generation }, run);
    });

  program
    .command("evaluate")
    .description("score a model on a set of questions")
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(new Option("--task <file.json>", "prompt, decoding and metric").argParser(fileName))
    .addOption(new Option("--data <file.jsonl>", "questions with their answers, one a line").argParser(fileName))
    .addOption(new Option("--images <folder>", "where the pictures are (default: beside the data)").argParser(fileName))
    .addOption(shardOption())
    .addOption(outOption())
    .addOption(resumeOption())
    .option("--json", "print one JSON object")
    .addOption(dtypeOption())
    .addOption(cacheDtypeOption())
    .addOption(cacheOption())
    .addOption(vicunaOption())
    .addHelpText("after", EXAMPLES.evaluate)
    .action(async (options, command) => {
      needs(command, "model", "task", "data");
      if (options.resume) needs(command, "out");
      const { runEvaluate } = await import("./evaluate.node.ts");
      done(await runEvaluate({ ...options, version: version() }, run));
    });

  program
    .command("merge")
    .description("add up the parts of an evaluation")
    .helpOption("-h, --help", "print this help")
    .argument("<parts...>", "files that evaluate --out has written")
    .option("--json", "print one JSON object")
    .addHelpText("after", EXAMPLES.merge)
    .action(async (files: string[], options) => {
      const { runMerge } = await import("./evaluate.node.ts");
      done(await runMerge(files, options, run));
    });

  program
    .command("trace")
    .description("run one forward pass and write its tensors to a file")
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(new Option("--image <file>", "a picture, or the URL of one").argParser(fileName))
    .addOption(new Option("--prompt <text>", "the question or instruction").argParser(text))
    .addOption(new Option("--out <file.safetensors>", "the file to write").argParser(fileName))
    .addOption(
      new Option("--decoder-input-ids <ids>", "T5: what the decoder reads (default: its start token)").argParser(ids),
    )
    .option("--all", "also write every module's output")
    .addOption(dtypeOption())
    .addOption(cacheOption())
    .addHelpText("after", EXAMPLES.trace)
    .action(async (options, command) => {
      needs(command, "model", "image", "prompt", "out");
      const { runTrace } = await import("./trace.node.ts");
      await runTrace(options, run);
    });

  program
    .command("attention")
    .description("show where in a picture the Q-Former's queries look")
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(new Option("--image <file>", "a picture, or the URL of one").argParser(fileName))
    .addOption(
      new Option("--prompt <text>", "the question or instruction (BLIP-2: none, its queries read no text)").argParser(
        text,
      ),
    )
    .addOption(new Option("--out <file>", "a .png or .svg to draw to; one for each layer").argParser(fileName))
    .option("--json", "print the weights as JSON")
    .addOption(new Option("--layer <n>", "one layer (default: every one that has cross-attention)").argParser(whole(0)))
    .addOption(
      new Option("--head <n>", "one head, or all, each on its own (default: their mean)").argParser(headChoice),
    )
    .addOption(
      new Option("--query <n>", "one query, all layers on one sheet (default: all queries)").argParser(whole(0)),
    )
    .option("--blocks", "show patches as blocks, not interpolated")
    .addOption(
      new Option("--scale-max <x>", "the weight drawn brightest (default: the sheet's largest)").argParser(positive),
    )
    .addOption(dtypeOption())
    .addHelpText("after", EXAMPLES.attention)
    .action(async (options, command) => {
      needs(command, "model", "image", ...(options.json ? [] : ["out"]));
      const { runAttention } = await import("./attention.node.ts");
      await runAttention(options, run);
    });

  program
    .command("inspect")
    .description("describe a checkpoint: sizes, number types, memory needed")
    .helpOption("-h, --help", "print this help")
    .argument("<folder>", "folder of a checkpoint")
    .option("--json", "print one JSON object")
    .option("--tensors", "list all tensors")
    .addHelpText("after", EXAMPLES.inspect)
    .action(async (folder: string, options) => {
      const { runInspect } = await import("./inspect.node.ts");
      await runInspect(folder, options, terminal);
    });

  program
    .command("devices")
    .description("list WebGPU adapters and say which one is used")
    .helpOption("-h, --help", "print this help")
    .option("--json", "print one JSON object")
    .addHelpText("after", EXAMPLES.devices)
    .action(async (options) => {
      const { runDevices } = await import("./devices.node.ts");
      done(await runDevices(options, terminal));
    });

  program
    .command("demo")
    .description("answer questions about six pictures with a small model that comes along")
    .helpOption("-h, --help", "print this help")
    .addHelpText("after", EXAMPLES.demo)
    .action(async () => {
      const { runDemo } = await import("./demo.node.ts");
      await runDemo(run);
    });

  program
    .command("setup")
    .description("find a WebGPU adapter, or install a software driver")
    .helpOption("-h, --help", "print this help")
    .option("--check", "say what would be done and change nothing; exit 1 if anything is missing")
    .addHelpText("after", EXAMPLES.setup)
    .action(async (options) => {
      const { runSetup } = await import("./setup.node.ts");
      done(await runSetup(options, run));
    });

  return program;
}

/** Runs a command line (without node and script) and says what went wrong. @returns the exit code; never throws */
export async function runCommandLine(args: readonly string[], run: Run): Promise<number> {
  let exitCode: number = EXIT.ok;
  let help = "";
  const handlers: Handlers = {
    print: (text) => {
      help += text;
    },
    done: (code) => {
      exitCode = code;
    },
  };
  try {
    try {
      await createProgram(run, handlers).parseAsync(args, { from: "user" });
    } catch (error) {
      if (!(error instanceof CommanderError)) throw error;
      if (error.exitCode !== 0) return EXIT.usage; // commander has said why
      await run.terminal.out(help);
    }
    return exitCode;
  } catch (error) {
    // After an interruption whatever failed because of it is beside the point.
    const cause = run.signal.aborted ? run.signal.reason : error;
    const { message, exitCode: code } = describeError(cause);
    if (message) say(run.terminal, message);
    if (message) sayStack(run.terminal, cause);
    return code;
  }
}

function version(): string {
  // The same path from src/instructblip/cli and from dist/instructblip/cli.
  return JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")).version;
}
