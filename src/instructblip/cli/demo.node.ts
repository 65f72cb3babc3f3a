/**
 * `demo`: the embedded checkpoint answers questions about images that it has not been trained on, streamed. The code of an
 * application is in `ask`; the rest prints.
 */
import { readFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { openDevice } from "../../tensor/device/open_device.ts";
import { TextIteratorStreamer } from "../generation/streamer.ts";
import { InstructBlipForConditionalGeneration } from "../pretrained/instructblip.ts";
import { InstructBlipProcessor } from "../processing/instructblip_processor.ts";
import type { Run } from "./session.node.ts";
import "./session.node.ts";

// The same path from src/instructblip/cli and from dist/instructblip/cli.
const FOLDER = fileURLToPath(new URL("../../../examples/shapes/", import.meta.url));

interface Example {
  readonly image: string;
  readonly questions: readonly string[];
}

interface Timing {
  readonly tokens: number;
  readonly firstTokenMs: number;
  readonly decodeMs: number;
}

async function ask(
  model: InstructBlipForConditionalGeneration,
  processor: InstructBlipProcessor,
  image: string,
  question: string,
  { terminal, signal }: Run,
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
    signal,
    on_token: () => {
      tokens++;
      first ||= performance.now();
    },
  });
  done.catch(() => {}); // the streamer throws it
  try {
    for await (const piece of streamer) await terminal.out(piece);
  } finally {
    await done.catch(() => {}); // it may still use the model, which is disposed next
  }
  await done;
  return { tokens, firstTokenMs: first - started, decodeMs: performance.now() - first };
}

export async function runDemo(run: Run): Promise<void> {
  const { terminal, signal } = run;
  const device = await openDevice();
  try {
    const { isSoftware, description, vendor } = device.caps;
    await terminal.out(`adapter  ${description} (${isSoftware ? "software, so no measure of speed" : vendor})\n`);

    const started = performance.now();
    const checkpoint = join(FOLDER, "checkpoint");
    const processor = await InstructBlipProcessor.from_pretrained(checkpoint);
    const model = await InstructBlipForConditionalGeneration.from_pretrained(checkpoint, { device, signal });
    const seconds = ((performance.now() - started) / 1000).toFixed(2);
    await terminal.out(`model    ${relative(process.cwd(), checkpoint)}, loaded in ${seconds} s\n`);

    const examples = JSON.parse(await readFile(join(FOLDER, "images/questions.json"), "utf8")) as Example[];
    const timings: Timing[] = [];
    for (const { image, questions } of examples) {
      const path = join(FOLDER, image);
      await terminal.out(`\n${relative(process.cwd(), path)}\n`);
      for (const question of questions) {
        await terminal.out(`  ${question} `);
        timings.push(await ask(model, processor, path, question, run));
        await terminal.out("\n");
      }
    }
    await terminal.out(speedOf(timings));
    model.dispose();
  } finally {
    device.destroy();
  }
}

function speedOf(timings: readonly Timing[]): string {
  const rest = timings.slice(1);
  const sum = (of: (timing: Timing) => number) => rest.reduce((total, timing) => total + of(timing), 0);
  const first = timings[0]!.firstTokenMs.toFixed(0);
  const then = (sum((timing) => timing.firstTokenMs) / rest.length).toFixed(0);
  const speed = ((1000 * sum((timing) => timing.tokens - 1)) / sum((timing) => timing.decodeMs)).toFixed(0);
  return (
    `\ntime to first token  ${first} ms for the first question (kernels compile), then ${then} ms\n` +
    `decoding             ${speed} tokens per second\n`
  );
}
