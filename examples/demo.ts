/**
 * `npm run demo`: the embedded checkpoint answers questions about pictures it has never seen, and the answers stream as
 * they are made. What you would write yourself is in `ask`; the rest prints.
 */
import { readFile } from "node:fs/promises";
import { styleText } from "node:util";
import {
  InstructBlipForConditionalGeneration,
  InstructBlipProcessor,
  openDevice,
  TextIteratorStreamer,
} from "../src/index.node.ts";

const folder = new URL("shapes/", import.meta.url);

interface Example {
  readonly image: string;
  readonly questions: readonly string[];
}

interface Timing {
  tokens: number;
  firstTokenMs: number;
  decodeMs: number;
}

async function ask(
  model: InstructBlipForConditionalGeneration,
  processor: InstructBlipProcessor,
  image: string,
  question: string,
): Promise<Timing> {
  const started = performance.now();
  let first = 0;
  let tokens = 0;
  const inputs = await processor({ images: [image], text: [question] });
  const streamer = new TextIteratorStreamer(processor.tokenizer, { skip_prompt: true, skip_special_tokens: true });
  const done = model.generate({
    ...inputs,
    max_new_tokens: 40,
    streamer,
    on_token: () => {
      tokens++;
      first ||= performance.now();
    },
  });
  for await (const piece of streamer) process.stdout.write(piece);
  await done;
  return { tokens, firstTokenMs: first - started, decodeMs: performance.now() - first };
}

const device = await openDevice();
const kind = device.caps.isSoftware ? "software, so no measure of speed" : device.caps.vendor;
console.log(`adapter  ${device.caps.description} (${kind})`);

const started = performance.now();
const checkpoint = new URL("checkpoint/", folder).pathname;
const processor = await InstructBlipProcessor.from_pretrained(checkpoint);
const model = await InstructBlipForConditionalGeneration.from_pretrained(checkpoint, { device });
console.log(
  `model    ${checkpoint.replace(/^.*(examples\/)/, "$1")}, loaded in ${((performance.now() - started) / 1000).toFixed(2)} s`,
);

const examples = JSON.parse(await readFile(new URL("pictures/questions.json", folder), "utf8")) as Example[];
const timings: Timing[] = [];
for (const { image, questions } of examples) {
  console.log(`\n${styleText("bold", `examples/shapes/${image}`)}`);
  for (const question of questions) {
    process.stdout.write(`  ${styleText("dim", question)} `);
    timings.push(await ask(model, processor, new URL(image, folder).pathname, question));
    process.stdout.write("\n");
  }
}

const [coldest, ...rest] = timings;
const sum = (of: (t: Timing) => number) => rest.reduce((total, timing) => total + of(timing), 0);
console.log(
  `\ntime to first token  ${coldest.firstTokenMs.toFixed(0)} ms for the first question (kernels compile), then ${(sum((t) => t.firstTokenMs) / rest.length).toFixed(0)} ms` +
    `\ndecoding             ${((1000 * sum((t) => t.tokens - 1)) / sum((t) => t.decodeMs)).toFixed(0)} tokens per second`,
);
model.dispose();
device.destroy();
