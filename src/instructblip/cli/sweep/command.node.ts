/** The grammar of `ablate` and `patch`. */
import { type Command, Option } from "commander";
import type { GenerationOptions } from "../../generation/options.ts";
import type { SweepKind } from "../../instruments/sweep/units.ts";
import { EXAMPLES } from "../help.ts";
import {
  batchSizeOption,
  dtypeOption,
  fileName,
  generationFlags,
  modelOption,
  names,
  needs,
  outOption,
  resumeOption,
  text,
  vicunaOption,
  weightCacheOption,
  whole,
} from "../options.ts";
import { shardOption } from "../requests/shard_option.node.ts";
import type { Run } from "../session.node.ts";

/** @param version the program's */
export function addSweeps(program: Command, run: Run, version: () => string): void {
  const ofAnswer = generationFlags().filter(({ name }) => ["max_new_tokens", "num_beams"].includes(name));
  const ablate = program
    .command("ablate")
    .description("take each layer, head, query and token out in turn, and see what the answer rests on");
  options(ablate, ofAnswer)
    .addOption(
      new Option("--mean <images...>", "replace parts by their mean over these images, instead of by zeros").conflicts(
        "from",
      ),
    )
    .addHelpText("after", EXAMPLES.ablate)
    .action(async (given, command: Command) => {
      await sweep("ablate", given, command);
    });

  const patch = program
    .command("patch")
    .description("restore each layer, head, query and token of a run in one on another image or instruction");
  options(patch, ofAnswer)
    .addOption(
      new Option("--corrupted-image <file>", "the image of the corrupted run (default: the same)")
        .argParser(fileName)
        .conflicts("from"),
    )
    .addOption(
      new Option("--corrupted-prompt <text>", "its instruction, of equally many tokens (default: the same)")
        .argParser(text)
        .conflicts("from"),
    )
    .addHelpText("after", EXAMPLES.patch)
    .action(async (given, command: Command) => {
      if (given.from === undefined && given.corruptedPrompt === undefined) needs(command, "corruptedImage");
      await sweep("patch", given, command);
    });

  async function sweep(kind: SweepKind, given: Record<string, unknown>, command: Command): Promise<void> {
    const { runSweep, runSweepReport } = await import("./sweep.node.ts");
    if (given.from !== undefined) return runSweepReport(kind, given as never, run);
    needs(command, "model", "image", "prompt");
    if (given.resume) needs(command, "out");
    const values = ofAnswer.map(({ name, option }) => [name, given[option.attributeName()]]);
    const generation: GenerationOptions = Object.fromEntries(values.filter(([, value]) => value !== undefined));
    await runSweep(
      kind,
      { ...(given as never as Parameters<typeof runSweep>[1]), generation, version: version() },
      run,
    );
  }
}

function options(command: Command, ofAnswer: ReturnType<typeof generationFlags>): Command {
  const alone = ["model", "image", "prompt", "answer", "targets", "batchSize", "shard", "out", "resume"];
  command
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(new Option("--image <file>", "an image, or the URL of one").argParser(fileName))
    .addOption(new Option("--prompt <text>", "the question or instruction").argParser(text))
    .addOption(new Option("--answer <text>", "the answer to look at (default: the model's own)").argParser(text));
  for (const { option } of ofAnswer) command.addOption(option.conflicts("answer"));
  return command
    .addOption(
      new Option("--targets <groups>", "only these groups, separated by commas: qformer.heads,**.layers").argParser(
        names,
      ),
    )
    .addOption(batchSizeOption("8"))
    .addOption(shardOption())
    .addOption(outOption())
    .addOption(resumeOption())
    .addOption(
      new Option("--from <parts...>", "report what these files of --out have; no model is loaded").conflicts(alone),
    )
    .addOption(new Option("--top <n>", "rows of the table; 0: all (default: 20)").argParser(whole(0)))
    .addOption(
      new Option("--json <file>", "write all of it to a file; - for stdout, without the table").argParser(fileName),
    )
    .addOption(new Option("--svg <file>", "draw heat maps").argParser(fileName))
    .addOption(new Option("--png <file>", "the same as PNG").argParser(fileName))
    .addOption(new Option("--html <file>", "write one HTML page with heat maps").argParser(fileName))
    .addOption(dtypeOption())
    .addOption(weightCacheOption())
    .addOption(vicunaOption());
}
