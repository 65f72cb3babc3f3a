/** The grammar of `features` and `retrieve`. */
import { type Command, Option } from "commander";
import { EXAMPLES } from "../help.ts";
import {
  batchSizeOption,
  computeDtypeOption,
  dataOptions,
  dtypeOption,
  fileName,
  modelOption,
  needs,
  resumeOption,
  statsOption,
  text,
  weightCacheOption,
  whole,
  workersOption,
} from "../options.ts";
import { shardOption } from "../requests/shard_option.node.ts";
import type { Run } from "../session.node.ts";

const dataOption = () =>
  new Option(
    "--data <path>",
    "a folder of images, JSON lines with images and texts, or a data set: JSON, Parquet, Arrow, tar, a folder of these",
  ).argParser(fileName);
const textsOption = () =>
  new Option(
    "--prompt <template>",
    "texts out of columns: {caption} (default: the question, or the caption)",
  ).argParser(text);
const columnOptions = () => [textsOption(), ...dataOptions(false)];

export function addRetrieval(
  program: Command,
  run: Run,
  { version, done }: { readonly version: () => string; readonly done: (exitCode: number) => void },
): void {
  const features = program
    .command("features")
    .description("write features of images and texts, as safetensors")
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(dataOption());
  for (const option of columnOptions()) features.addOption(option);
  features
    .addOption(new Option("--out <file.safetensors>", "the file to write").argParser(fileName))
    .addOption(shardOption())
    .addOption(resumeOption())
    .addOption(batchSizeOption("8"))
    .addOption(workersOption())
    .addOption(statsOption())
    .addOption(dtypeOption())
    .addOption(computeDtypeOption())
    .addOption(weightCacheOption())
    .addHelpText("after", EXAMPLES.features)
    .action(async (options, command) => {
      needs(command, "model", "data", "out");
      const { runFeatures } = await import("./features.node.ts");
      done(await runFeatures({ ...options, version: version() }, run));
    });

  const retrieve = program
    .command("retrieve")
    .description("rank images for a text, or texts for an image")
    .helpOption("-h, --help", "print this help")
    .addOption(modelOption())
    .addOption(dataOption());
  for (const option of columnOptions()) retrieve.addOption(option);
  retrieve
    .addOption(new Option("--text <text>", "rank the images of the data for this text").argParser(text))
    .addOption(
      new Option("--image <file>", "rank the texts of the data for this image, a file or a URL")
        .argParser(fileName)
        .conflicts("text"),
    )
    .addOption(
      new Option("--rerank <k>", "the matching head judges the k best again; 0: none (default: 128)").argParser(
        whole(0),
      ),
    )
    .addOption(new Option("--top <n>", "rows to print; 0: all (default: 20)").argParser(whole(0)))
    .addOption(batchSizeOption("8"))
    .option("--json", "print one JSON object")
    .addOption(dtypeOption())
    .addHelpText("after", EXAMPLES.retrieve)
    .action(async (options, command) => {
      needs(command, "model", "data", ...(options.image === undefined ? ["text"] : []));
      const { runRetrieve } = await import("./retrieve.node.ts");
      done(await runRetrieve(options, run));
    });
}
