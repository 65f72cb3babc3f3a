/** The grammar of `profile`. */
import { type Command, Option } from "commander";
import type { GenerationOptions } from "../../generation/options.ts";
import { EXAMPLES } from "../help.ts";
import {
  computeDtypeOption,
  dtypeOption,
  fileName,
  generationFlags,
  kvCacheDtypeOption,
  modelOption,
  needs,
  text,
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
    .addOption(new Option("--image <file>", "an image, or the URL of one").argParser(fileName))
    .addOption(new Option("--prompt <text>", "the question or instruction").argParser(text))
    .addOption(new Option("--by <what>", "rows of the table").choices(["module", "kernel"]).default("module"))
    .option("--layers", "a row for each layer, not one for all layers of a stack")
    .addOption(new Option("--top <n>", "rows of the table; 0: all (default: 20)").argParser(whole(0)))
    .addOption(
      new Option("--json <file>", "write all of it to a file; - for stdout, without the table").argParser(fileName),
    )
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
  const ofAnswer = generationFlags().filter(({ name }) => ["max_new_tokens", "num_beams"].includes(name));
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
      const given = ofAnswer.map(({ name, option }) => [name, options[option.attributeName()]]);
      const generation: GenerationOptions = Object.fromEntries(given.filter(([, value]) => value !== undefined));
      const { runProfile } = await import("./profile.node.ts");
      await runProfile({ ...options, generation }, run);
    });
}
