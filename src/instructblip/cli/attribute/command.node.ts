/** The grammar of `attribute`. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { METHODS } from "../../instruments/attribute/attribute.ts";
import { FILLS } from "../../instruments/attribute/occlusion.ts";
import { WORD_OCCLUSIONS } from "../../instruments/attribute/words.ts";
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
  promptOption,
  vicunaOption,
  weightCacheOption,
  whole,
} from "../options.ts";
import type { Run } from "../session.node.ts";

export function addAttribute(program: Command, run: Run): void {
  const ofAnswer = answerFlags();
  const command = program
    .command("attribute")
    .description("what in the image and in the instruction each token of the answer rests on")
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(imageOption())
    .addOption(promptOption())
    .addOption(answerOption());
  for (const { option } of ofAnswer) command.addOption(option.conflicts("answer"));
  command
    .addOption(
      new Option("--methods <names>", `some of ${METHODS.join(",")}, separated by commas (default: all)`).argParser(
        methods,
      ),
    )
    .addOption(
      new Option("--window <n>", "side of an occluded window, in patches (default: a quarter of the image)").argParser(
        whole(1),
      ),
    )
    .addOption(
      new Option("--stride <n>", "distance of windows, in patches (default: a quarter of a window)").argParser(
        whole(1),
      ),
    )
    .addOption(
      new Option("--fill <how>", "what an occluded patch holds")
        .choices(FILLS)
        .default("mean", "mean: the image's mean colour"),
    )
    .addOption(new Option("--word <how>", "what an occluded word becomes").choices(WORD_OCCLUSIONS).default("remove"))
    .addOption(batchSizeOption("8"))
    .addOption(new Option("--out <file>", "a .png or .svg to write; one for each method").argParser(fileName))
    .addOption(jsonOption("tables"))
    .addOption(new Option("--html <file>", "write a page to look at").argParser(fileName))
    .addOption(dtypeOption())
    .addOption(weightCacheOption())
    .addOption(vicunaOption())
    .addHelpText("after", EXAMPLES.attribute)
    .action(async (options, self: Command) => {
      needs(self, "model", "image", "prompt");
      const { runAttribute } = await import("./attribute.node.ts");
      await runAttribute({ ...options, generation: generationOf(ofAnswer, options) }, run);
    });
}

function methods(value: string, previous: readonly string[] | undefined): readonly string[] {
  const given = names(value, previous);
  const wrong = given.some((name) => !(METHODS as readonly string[]).includes(name));
  if (wrong) throw new InvalidArgumentError(`It must be some of ${METHODS.join(", ")}.`);
  return given;
}
