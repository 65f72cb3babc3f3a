/** One question about one image, as `trace`, `compare`, `lens`, `ablate` and `patch` ask it: all but the loaded model. */
import { candidateIds } from "../generation/ranking.ts";
import { AutoProcessor } from "../pretrained/auto_processor.ts";
import { readNamedImage } from "../pretrained/platform.node.ts";
import { openModelFolder } from "./folder.node.ts";
import { prepareInputs, type Run } from "./session.node.ts";

interface Question {
  readonly model: string;
  /** A file or a URL. */
  readonly image: string;
  readonly prompt: string;
  /** The answer to look at. */
  readonly answer?: string | undefined;
}

/** Opens the model's folder, and prepares the inputs and the answer's ids. */
export async function openQuestion({ model, image: name, prompt, answer: text }: Question, run: Run) {
  const folder = await openModelFolder(model, run);
  const config = await folder.config();
  const processor = await AutoProcessor.from_pretrained(folder);
  const image = await readNamedImage(name, { signal: run.signal });
  const inputs = await prepareInputs(processor, config, [image], [prompt]);
  const answer = text === undefined ? undefined : candidateIds(processor.tokenizer, [text])[0]!;
  return { folder, config, processor, image, inputs, answer };
}
