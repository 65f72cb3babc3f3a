/** `generate`: one answer as text or JSON. Many: requests/answer_requests.node.ts. */
import { performance } from "node:perf_hooks";
import { checkDecoding } from "../generation/configuration.ts";
import type { GenerationOptions } from "../generation/options.ts";
import type { AssistedCounts } from "../generation/output.ts";
import { type Streamer, TextIteratorStreamer } from "../generation/streamer.ts";
import type { AnswerLogprobs } from "../generation/types.ts";
import { type AnyProcessor, AutoProcessor } from "../pretrained/auto_processor.ts";
import { readNamedImage } from "../pretrained/platform.node.ts";
import type { VisionLanguageModel } from "../pretrained/vision_language_model.ts";
import { openModelFolder } from "./folder.node.ts";
import { readInterventions } from "./interventions.node.ts";
import { logprobTable } from "./logprobs.ts";
import { answerTogether } from "./requests/batches.ts";
import { checkAssistant, loadAssistant, type ModelOptions } from "./requests/models.node.ts";
import { readable, resultOf } from "./requests/result.ts";
import { loadModel, loadOptions, prepareInputs, type Run } from "./session.node.ts";
import { Progress, say } from "./terminal.node.ts";
import { Stopwatch } from "./timing.ts";

export interface Question extends ModelOptions {
  /** Files or URLs: several are all for the one prompt. */
  readonly image: readonly string[];
  readonly prompt: string;
  readonly negativePrompt?: string;
  readonly generation: GenerationOptions;
  /** A file. */
  readonly interventions?: string;
  readonly json?: boolean;
}

/** Answers one question, as streamed text or one line of JSON. */
export async function runGenerate(question: Question, run: Run): Promise<void> {
  const { terminal, signal } = run;
  checkDecoding(question.generation, question.assistant !== undefined);
  const interventions = await readInterventions(question.interventions);
  let start = performance.now();
  const folder = await openModelFolder(question.model, run);
  const config = await folder.config();
  await checkAssistant(question, config, run);
  const processor = await AutoProcessor.from_pretrained(folder);
  let load_ms = performance.now() - start;
  // Errors of image and prompt are thrown before the weights are loaded.
  const watch = new Stopwatch(1);
  const images = [];
  for (const image of question.image) images.push(await readNamedImage(image, { signal }));
  const inputs = await prepareInputs(processor, config, images.length > 1 ? [images] : images, [question.prompt]);
  const asked = { ...question.generation, ...negativePrompt(processor, question) };
  watch.preprocessed();
  start = performance.now();
  const model = await loadModel(folder, question.dtype, run, loadOptions(question));
  let assistant: VisionLanguageModel | undefined;
  try {
    assistant = await loadAssistant(question, model, run);
    load_ms += performance.now() - start;
    const generation = { ...asked, ...(assistant && { assistant_model: assistant }) };
    if (question.json) {
      const hooks = { signal, tokenizer: processor.tokenizer, load_ms };
      for await (const outcome of answerTogether(
        model,
        [{ inputs, options: generation, interventions }],
        { rows: 1 },
        () => watch,
        hooks,
      )) {
        if ("error" in outcome) throw outcome.error;
        await terminal.out(`${JSON.stringify(resultOf(processor, null, outcome.answer))}\n`);
      }
      return;
    }
    const { tokenizer } = processor;
    const options = {
      ...inputs,
      ...generation,
      interventions,
      tokenizer,
      signal,
      return_dict_in_generate: true,
      return_full_text: false,
    } as const;
    const table = (answer: AnswerLogprobs | undefined) => (answer ? `\n${logprobTable(answer, tokenizer)}` : "");
    const { num_beams, num_return_sequences } = generation;
    if ((num_beams ?? 1) > 1 || (num_return_sequences ?? 1) > 1) {
      // The best answer is known at the end only; a terminal shows the best one so far.
      const progress = new Progress(terminal);
      const streamer: Streamer = {
        put: () => {},
        best: (answers) => progress.showEnd(processor.batch_decode(answers, { skip_special_tokens: true }).join("")),
        end: () => progress.clear(),
      };
      const shown = terminal.errIsTerminal && (num_beams ?? 1) > 1 ? { streamer } : {};
      const { sequences, logprobs } = await model.generate({ ...options, ...shown });
      const texts = processor.batch_decode(readable(sequences), { skip_special_tokens: true });
      const answers = texts.map((text, i) => `${text.trim()}\n${table(logprobs?.[i])}`);
      return await terminal.out(answers.join(logprobs ? "\n" : ""));
    }
    const streamer = new TextIteratorStreamer(tokenizer, { skip_prompt: true, skip_special_tokens: true });
    const generated = model.generate({ ...options, streamer });
    generated.catch(() => {}); // the streamer throws it
    let started = false;
    try {
      for await (const piece of streamer) {
        const text: string = started ? piece : piece.trimStart();
        if (text) await terminal.out(text);
        started ||= text !== "";
      }
    } catch (error) {
      await generated.catch(() => {}); // it may still use the model, which is disposed next
      if (started && terminal.outIsTerminal) await terminal.out("\n").catch(() => {});
      throw error;
    }
    const { logprobs, assisted } = await generated;
    await terminal.out(`\n${table(logprobs?.[0])}`);
    if (assisted && terminal.errIsTerminal) say(terminal, countsText(assisted));
  } finally {
    assistant?.dispose();
    model.dispose();
  }
}

function countsText({ passes, draft_tokens, accepted_tokens }: AssistedCounts): string {
  return `${passes + accepted_tokens} tokens in ${passes} passes; ${accepted_tokens} of ${draft_tokens} draft tokens accepted`;
}

/** A row for each answer. */
function negativePrompt(
  { tokenizer }: AnyProcessor,
  { negativePrompt: text, generation }: Question,
): GenerationOptions {
  if (text === undefined) return {};
  const ids = tokenizer.encode(text);
  return { negative_prompt_ids: Array.from({ length: generation.num_return_sequences ?? 1 }, () => ids) };
}
