/** The grammar of `profile`. */
import { type Command, Option } from "commander";
import { EXAMPLES } from "../help.ts";
import {
  answerFlags,
  computeDtypeOption,
  dtypeOption,
  fileName,
  generationOf,
  imageOption,
  jsonOption,
  kvCacheDtypeOption,
  modelOption,
  needs,
  promptOption,
  topOption,
  vicunaOption,
  weightCacheOption,
  whole,
} from "../options.ts";
import type { Run } from "../session.node.ts";

export function addProfile(program: Command, run: Run): void {
  const profile = program
    .command("profile")
    .description("time a load and an answer, by module and by kernel")
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(imageOption())
    .addOption(promptOption())
    .addOption(new Option("--by <what>", "rows of the table").choices(["module", "kernel"]).default("module"))
    .option("--layers", "a row for each layer, not one for all layers of a stack")
    .addOption(topOption())
    .addOption(jsonOption("table"))
    .addOption(new Option("--trace <file.json>", "write a trace for ui.perfetto.dev").argParser(fileName))
    .addOption(
      new Option(
        "--clock <clock>",
        "timestamps of the GPU, or the host's clock with a sync at each launch (default: timestamps if there are any)",
      ).choices(["timestamps", "sync"]),
    )
    .addOption(
      new Option("--warm-up <n>", "answers before the one that is timed, which compile kernels (default: 1)").argParser(
        whole(0),
      ),
    );
  profile.addOption(
    new Option("--repeat <n>", "answers that are timed, of which the fastest is shown (default: 1)").argParser(
      whole(1),
    ),
  );
  const ofAnswer = answerFlags();
  for (const { option } of ofAnswer) profile.addOption(option);
  profile
    .addOption(dtypeOption())
    .addOption(computeDtypeOption())
    .addOption(kvCacheDtypeOption())
    .addOption(weightCacheOption())
    .addOption(vicunaOption())
    .addHelpText("after", EXAMPLES.profile)
    .action(async (options, command) => {
      needs(command, "model", "image", "prompt");
      const { runProfile } = await import("./profile.node.ts");
      await runProfile({ ...options, generation: generationOf(ofAnswer, options) }, run);
    });
}
