/** The grammar of `ablate` and `patch`. */
import { type Command, Option } from "commander";
import type { SweepKind } from "../../instruments/sweep/units.ts";
import { EXIT } from "../format.ts";
import { EXAMPLES } from "../help.ts";
import {
  answerFlags,
  answerOption,
  batchSizeOption,
  dtypeOption,
  fileName,
  generationOf,
  imageOption,
  jsonOption,
  modelOption,
  names,
  needs,
  outOption,
  promptOption,
  resumeOption,
  text,
  topOption,
  vicunaOption,
  weightCacheOption,
} from "../options.ts";
import { shardOption } from "../requests/shard_option.node.ts";
import type { Run } from "../session.node.ts";

/** @param version the program's */
export function addSweeps(program: Command, run: Run, version: () => string): void {
  const ofAnswer = answerFlags();
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
      if (given.from === undefined && given.corruptedImage === undefined && given.corruptedPrompt === undefined) {
        const message =
          "error: required option '--corrupted-image <file>' or '--corrupted-prompt <text>' not specified";
        command.error(message, { exitCode: EXIT.usage });
      }
      await sweep("patch", given, command);
    });

  async function sweep(kind: SweepKind, given: Record<string, unknown>, command: Command): Promise<void> {
    const { runSweep, runSweepReport } = await import("./sweep.node.ts");
    if (given.from !== undefined) return runSweepReport(kind, given as never, run);
    needs(command, "model", "image", "prompt");
    if (given.resume) needs(command, "out");
    const generation = generationOf(ofAnswer, given);
    await runSweep(
      kind,
      { ...(given as never as Parameters<typeof runSweep>[1]), generation, version: version() },
      run,
    );
  }
}

function options(command: Command, ofAnswer: ReturnType<typeof answerFlags>): Command {
  const alone = ["model", "image", "prompt", "answer", "targets", "batchSize", "shard", "out", "resume"];
  command
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(imageOption())
    .addOption(promptOption())
    .addOption(answerOption());
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
    .addOption(topOption())
    .addOption(jsonOption("table"))
    .addOption(new Option("--svg <file>", "draw heat maps").argParser(fileName))
    .addOption(new Option("--png <file>", "the same as PNG").argParser(fileName))
    .addOption(new Option("--html <file>", "write one HTML page with heat maps").argParser(fileName))
    .addOption(dtypeOption())
    .addOption(weightCacheOption())
    .addOption(vicunaOption());
}
