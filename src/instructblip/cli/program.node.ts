/**
 * The command line's grammar: commands, options, help, exit codes. Each command is in its own file, imported when it runs,
 * so that `--help` and mistyped options respond at once.
 */
import { readFileSync } from "node:fs";
import { Command, CommanderError, Option } from "commander";

import type { GenerationOptions } from "../generation/options.ts";
import type { WeightParts } from "../pretrained/model_folder.ts";
import { addAttribute } from "./attribute/command.node.ts";
import { addCompare } from "./compare/command.node.ts";
import { describeError, EXIT } from "./format.ts";
import { ENVIRONMENT, EXAMPLES, EXIT_CODES } from "./help.ts";
import {
  adapterOption,
  answerFlags,
  answerOption,
  assistantOptions,
  baseModelOption,
  batchSizeOption,
  computeDtypeOption,
  conflicts,
  dataOptions,
  dtypeOption,
  fileName,
  generationFlags,
  generationOf,
  headChoice,
  idColumnOption,
  ids,
  imageOption,
  imagesOption,
  interventionsOption,
  jsonOption,
  kvCacheDtypeOption,
  modelOption,
  needs,
  outOption,
  pattern,
  positive,
  promptOption,
  resumeOption,
  splitOption,
  statsOption,
  text,
  vicunaOption,
  weightCacheOption,
  whole,
  workersOption,
} from "./options.ts";
import { addProfile } from "./profile/command.node.ts";
import { shardOption } from "./requests/shard_option.node.ts";
import { addRetrieval } from "./retrieval/command.node.ts";
import type { Run } from "./session.node.ts";
import { addSweeps } from "./sweep/command.node.ts";
import { say, sayStack } from "./terminal.node.ts";

/** Options of generate that are about many requests. */
const OF_REQUESTS = [
  ...["shard", "out", "resume", "batchSize"],
  ...["imageColumn", "questionColumn", "idColumn", "split", "workers", "stats"],
];

/** The results of a program besides thrown errors. */
export interface Handlers {
  /** Help and version. */
  readonly print: (text: string) => void;
  /** The exit code of a command that ran, if it is not 0. */
  readonly done: (exitCode: number) => void;
}

/** The program. It never exits the process: errors are thrown, and help is a CommanderError with exit code 0. */
export function createProgram(given: Run, { print, done }: Handlers): Command {
  const { terminal } = given;
  const parts: WeightParts = {};
  const run: Run = { ...given, parts };
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

  const flags = generationFlags();
  const generate = program
    .command("generate")
    .description("answer a question about an image, or many")
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(imagesOption())
    .addOption(promptOption())
    .addOption(
      new Option("--requests <file.jsonl>", "many requests, or a data set; - for stdin; with --json")
        .argParser(fileName)
        .conflicts(["image", "negativePrompt", "interventions"]),
    )
    .addOption(shardOption())
    .addOption(outOption())
    .addOption(resumeOption())
    .addOption(batchSizeOption("8; of a pipe 1"))
    .addOption(workersOption())
    .addOption(statsOption())
    .option("--json", "print JSON instead of text");
  for (const option of dataOptions(false)) generate.addOption(option);
  for (const { option } of flags) generate.addOption(option);
  for (const option of assistantOptions()) generate.addOption(option);
  generate
    .addOption(
      new Option(
        "--negative-prompt <text>",
        "negative prompt of --guidance-scale (default: the prompt's last token)",
      ).argParser(text),
    )
    .addOption(interventionsOption())
    .addOption(dtypeOption())
    .addOption(computeDtypeOption())
    .addOption(kvCacheDtypeOption())
    .addOption(weightCacheOption())
    .addOption(vicunaOption())
    .addHelpText("after", EXAMPLES.generate)
    .action(async (options, command) => {
      if (OF_REQUESTS.some((name) => options[name] !== undefined)) needs(command, "requests");
      if (options.assistantDtype !== undefined) needs(command, "assistant");
      const given = flags.map(({ name, option, bare }) => {
        const value: unknown = options[option.attributeName()];
        return [name, value === true ? (bare ?? true) : value];
      });
      const generation: GenerationOptions = Object.fromEntries(given.filter(([, value]) => value !== undefined));
      if (options.requests !== undefined) {
        needs(command, "model", "json");
        if (options.resume) needs(command, "out");
        const { runRequests } = await import("./requests/answer_requests.node.ts");
        const { areRows } = await import("./requests/row_files.node.ts");
        // Lines have prompts and options of their own.
        if (!(await areRows(options.requests, options))) {
          const of = flags.filter(({ name }) => name in generation).map(({ option }) => option.attributeName());
          const others = options.prompt === undefined ? of : ["prompt", ...of];
          conflicts(command, "requests", others, ': lines have "prompts" and "generation" of their own');
        }
        return done(await runRequests({ ...options, generation, version: version() }, run));
      }
      needs(command, "model", "image", "prompt");
      if (options.negativePrompt !== undefined) needs(command, "guidanceScale");
      const { runGenerate } = await import("./generate.node.ts");
      await runGenerate({ ...options, generation }, run);
    });

  const evaluate = program
    .command("evaluate")
    .description("score a model on a set of questions")
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(new Option("--task <file.json>", "prompt, decoding and metric").argParser(fileName))
    .addOption(
      new Option("--data <file.jsonl>", "questions with their answers: a file, or a data set's folder").argParser(
        fileName,
      ),
    )
    .addOption(new Option("--images <folder>", "where the images are (default: beside the data)").argParser(fileName))
    .addOption(shardOption())
    .addOption(outOption())
    .addOption(resumeOption())
    .addOption(batchSizeOption("8"))
    .addOption(workersOption())
    .addOption(statsOption())
    .option("--json", "print one JSON object")
    .option("--list-presets", "print the presets of tasks, with where each is from");
  for (const option of dataOptions(true)) evaluate.addOption(option);
  evaluate
    .addOption(dtypeOption())
    .addOption(computeDtypeOption())
    .addOption(kvCacheDtypeOption())
    .addOption(weightCacheOption())
    .addOption(vicunaOption())
    .addHelpText("after", EXAMPLES.evaluate)
    .action(async (options, command) => {
      if (options.listPresets) {
        const isGiven = (name: string) => name !== "listPresets" && command.getOptionValueSource(name) === "cli";
        const others = Object.keys(options).filter(isGiven);
        conflicts(command, "listPresets", others, ": it prints them and does nothing else");
        const { presetsText } = await import("../evaluation/preset_list.ts");
        return run.terminal.out(presetsText());
      }
      needs(command, "model", "task", "data");
      if (options.resume) needs(command, "out");
      const { runEvaluate } = await import("./evaluate.node.ts");
      done(await runEvaluate({ ...options, version: version() }, run));
    });

  program
    .command("merge")
    .description("merge the files of all shards, of evaluate or generate --requests")
    .helpOption("-h, --help", "print this help")
    .argument("<parts...>", "files written by evaluate --out, or generate --out")
    .addOption(
      new Option("--requests <file.jsonl>", "of generate: print the answers of these requests, in their order")
        .argParser(fileName)
        .conflicts("json"),
    )
    .addOption(idColumnOption())
    .addOption(splitOption())
    .option("--json", "print one JSON object")
    .addHelpText("after", EXAMPLES.merge)
    .action(async (files: string[], options, command) => {
      if (options.idColumn !== undefined || options.split !== undefined) needs(command, "requests");
      const { runMerge } = await import("./evaluate.node.ts");
      done(await runMerge(files, options, run));
    });

  addRetrieval(program, run, { version, done });

  program
    .command("trace")
    .description("run one forward pass and write its tensors to a file")
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(imageOption())
    .addOption(promptOption())
    .addOption(new Option("--out <file.safetensors>", "the file to write").argParser(fileName))
    .addOption(
      new Option("--decoder-input-ids <ids>", "T5: input ids of the decoder (default: its start token)").argParser(ids),
    )
    .option("--all", "also write every module's output")
    .addOption(interventionsOption())
    .addOption(dtypeOption())
    .addOption(weightCacheOption())
    .addHelpText("after", EXAMPLES.trace)
    .action(async (options, command) => {
      needs(command, "model", "image", "prompt", "out");
      const { runTrace } = await import("./trace.node.ts");
      await runTrace(options, run);
    });

  addCompare(program, run, done);

  program
    .command("attention")
    .description("draw the attention of the Q-Former's queries over an image")
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(imageOption())
    .addOption(
      new Option(
        "--prompt <text>",
        "the question or instruction (not for BLIP-2, whose Q-Former reads no text)",
      ).argParser(text),
    )
    .addOption(new Option("--out <file>", "a .png or .svg to write; one for each layer").argParser(fileName))
    .option("--json", "print the weights as JSON")
    .addOption(new Option("--layer <n>", "one layer (default: all with cross-attention)").argParser(whole(0)))
    .addOption(new Option("--head <n>", "one head, or all separately (default: their mean)").argParser(headChoice))
    .addOption(
      new Option("--query <n>", "one query, all layers on one sheet (default: all queries)").argParser(whole(0)),
    )
    .option("--blocks", "show patches as blocks, not interpolated")
    .addOption(
      new Option("--scale-max <x>", "the weight of the brightest colour (default: the sheet's largest)").argParser(
        positive,
      ),
    )
    .addOption(dtypeOption())
    .addHelpText("after", EXAMPLES.attention)
    .action(async (options, command) => {
      needs(command, "model", "image", ...(options.json ? [] : ["out"]));
      const { runAttention } = await import("./attention/attention.node.ts");
      await runAttention(options, run);
    });

  const lens = program
    .command("lens")
    .description("what each layer of the language model would say, and each image token")
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(imageOption())
    .addOption(promptOption())
    .addOption(answerOption())
    .addOption(
      new Option("--top-k <n>", "words of each layer and token, at most 100 (default: 5)").argParser(whole(1, 100)),
    )
    .addOption(jsonOption("tables"))
    .addOption(new Option("--html <file>", "write a page to look at").argParser(fileName));
  const ofAnswer = answerFlags();
  for (const { option } of ofAnswer) lens.addOption(option.conflicts("answer"));
  lens
    .addOption(interventionsOption())
    .addOption(dtypeOption())
    .addOption(weightCacheOption())
    .addOption(vicunaOption())
    .addHelpText("after", EXAMPLES.lens)
    .action(async (options, command) => {
      needs(command, "model", "image", "prompt");
      const { runLens } = await import("./lens/lens.node.ts");
      await runLens({ ...options, generation: generationOf(ofAnswer, options) }, run);
    });

  addAttribute(program, run);
  addSweeps(program, run, version);
  addProfile(program, run);

  const inspect = program
    .command("inspect")
    .description("describe a checkpoint: sizes, dtypes, memory needed")
    .helpOption("-h, --help", "print this help")
    .argument("<folder>", "folder of a checkpoint")
    .option("--json", "print one JSON object")
    .option("--tensors", "list all tensors")
    .addHelpText("after", EXAMPLES.inspect)
    .action(async (folder: string, options) => {
      const { runInspect } = await import("./inspect/inspect.node.ts");
      await runInspect(folder, options, run);
    });

  program
    .command("devices")
    .description("list WebGPU adapters, with the one in use")
    .helpOption("-h, --help", "print this help")
    .option("--json", "print one JSON object")
    .addHelpText("after", EXAMPLES.devices)
    .action(async (options) => {
      const { runDevices } = await import("./devices.node.ts");
      done(await runDevices(options, terminal));
    });

  program
    .command("demo")
    .description("answer questions about six images with an embedded small model")
    .helpOption("-h, --help", "print this help")
    .addHelpText("after", EXAMPLES.demo)
    .action(async () => {
      const { runDemo } = await import("./demo.node.ts");
      await runDemo(run);
    });

  program
    .command("doctor")
    .description("check that the adapter computes correctly: every kernel, then a small model's answers")
    .helpOption("-h, --help", "print this help")
    .option("--quick", "small shapes and one image only")
    .addOption(
      new Option("--filter <regex>", 'only checks whose name matches: "linear.*subgroup", "answers int4"').argParser(
        pattern,
      ),
    )
    .addOption(
      new Option("--json <file>", "write the report to a file; - for stdout, without other output").argParser(fileName),
    )
    .addHelpText("after", EXAMPLES.doctor)
    .action(async (options) => {
      const { runDoctor } = await import("./doctor.node.ts");
      done(await runDoctor({ ...options, version: version() }, run));
    });

  program
    .command("setup")
    .description("find a WebGPU adapter, or install a software driver")
    .helpOption("-h, --help", "print this help")
    .option("--check", "print what would be done and change nothing; exit 1 if anything is missing")
    .addHelpText("after", EXAMPLES.setup)
    .action(async (options) => {
      const { runSetup } = await import("./setup.node.ts");
      done(await runSetup(options, run));
    });

  const ofModels = program.commands.filter(({ options }) => options.some(({ long }) => long === "--model"));
  for (const command of [inspect, ...ofModels]) command.addOption(baseModelOption()).addOption(adapterOption());
  program.hook("preAction", (_, command) => {
    const { baseModel: base_model, adapter } = command.opts();
    Object.assign(parts, { base_model, adapter });
  });
  return program;
}

/** Runs a command line (without node and script) and prints errors. @returns the exit code; never throws */
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
      const program = createProgram(run, handlers);
      // For an unknown command, commander would print the whole help as an error.
      const isKnown = program.commands.some((command) => command.name() === args[1]);
      const isUnknown = args[0] === "help" && args.length > 1 && !isKnown;
      await program.parseAsync(isUnknown ? args.slice(1) : args, { from: "user" });
    } catch (error) {
      if (!(error instanceof CommanderError)) throw error;
      if (error.exitCode !== 0) return EXIT.usage; // commander has printed the error
      await run.terminal.out(help);
    }
    return exitCode;
  } catch (error) {
    // Errors caused by an interruption are not printed.
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
