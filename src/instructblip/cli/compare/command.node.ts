/** The grammar of `compare`. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { type Given, isSetting, parseSetting, type Setting } from "../../compare/setting.ts";
import { EXIT } from "../format.ts";
import { EXAMPLES } from "../help.ts";
import {
  fileName,
  glob,
  ids,
  imageOption,
  modelOption,
  needs,
  notNegative,
  promptOption,
  topOption,
  weightCacheOption,
  whole,
} from "../options.ts";
import type { Run } from "../session.node.ts";

const TOLERANCE = 1e-9;

export function addCompare(program: Command, run: Run, done: (exitCode: number) => void): void {
  program
    .command("compare")
    .description("compare two traces, of files or of settings, module by module")
    .helpOption("-h, --help", "print this help")
    .argument("<a>", "the reference: a .safetensors file of a trace, or a setting", given)
    .argument("<b>", "what is compared with it: the same", given)
    .addOption(modelOption())
    .addOption(imageOption())
    .addOption(promptOption())
    .addOption(
      new Option("--decoder-input-ids <ids>", "T5: input ids of the decoder (default: its start token)").argParser(ids),
    )
    .addOption(new Option("--steps <n>", "n passes of generate() in place of one of forward()").argParser(whole(1)))
    .addOption(
      new Option(
        "--tolerance <nmse>",
        `NMSE above which a tensor is different (default: ${TOLERANCE.toExponential()})`,
      ).argParser(notNegative),
    )
    .option("--bisect", "give every module of B the inputs of A: which are wrong by themselves")
    .addOption(
      new Option(
        "--gate <nmse>",
        "with --bisect and a dtype: which modules need more bits for this NMSE of the logits",
      ).argParser(notNegative),
    )
    .addOption(new Option("--filter <glob>", "only these modules: qformer.**, **.mlp").argParser(glob))
    .addOption(topOption())
    .option("--statistics", "also print min, max, mean, rms and zeros of each tensor")
    .addOption(new Option("--json <file>", "write the comparison to a file; - for stdout").argParser(fileName))
    .addOption(new Option("--html <file>", "write the comparison as one HTML page").argParser(fileName))
    .addOption(weightCacheOption())
    .addHelpText("after", EXAMPLES.compare)
    .action(async (a: Given, b: Given, options, command: Command) => {
      check([a, b], options, command);
      const { runCompare } = await import("./compare.node.ts");
      done(await runCompare([a, b], { ...options, tolerance: options.tolerance ?? TOLERANCE }, run));
    });
}

function given(text: string): Given {
  if (!isSetting(text)) return { file: text };
  try {
    return parseSetting(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
}

/** Options that only a model that is loaded has a use for. */
const LIVE = ["model", "image", "prompt", "decoderInputIds", "steps", "weightCache"];

function check(given: readonly Given[], options: Record<string, unknown>, command: Command): void {
  const fail = (message: string): never => command.error(`error: ${message}`, { exitCode: EXIT.usage });
  const [, b] = given;
  if (options.bisect && (!b || "file" in b)) fail("option '--bisect' needs a setting as b, which runs with a's inputs");
  if (options.gate !== undefined) {
    if (!options.bisect) fail("option '--gate <nmse>' is for --bisect");
    if (!b || "file" in b || b.dtype === undefined) fail("option '--gate <nmse>' needs a dtype in b");
    if (options.steps !== undefined) fail("option '--gate <nmse>' is about the logits of forward(), without --steps");
  }
  const settings = given.filter((one): one is Setting => !("file" in one));
  if (settings.length === 0) {
    const option = command.options.find(
      (one) => LIVE.includes(one.attributeName()) && options[one.attributeName()] !== undefined,
    );
    if (option) fail(`option '${option.flags}' is for settings, both traces are files`);
    return;
  }
  if (settings.some(({ model }) => model === undefined)) needs(command, "model");
  needs(command, "image", "prompt");
  if (options.steps !== undefined && options.decoderInputIds !== undefined) {
    fail("option '--decoder-input-ids <ids>' is for forward(), not for the passes of --steps");
  }
  const cached = settings.find(({ kv_cache_dtype }) => kv_cache_dtype !== undefined);
  if (cached && options.steps === undefined) {
    fail(`${cached.text}: one pass of forward() has no key/value cache; --steps 4 compares passes of generate()`);
  }
}
