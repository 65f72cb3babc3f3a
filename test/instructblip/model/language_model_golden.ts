/**
 * Compares the language model of a golden alone: its modules teacher-forced, its logits, its greedy answer, from PyTorch's
 * embedded prompt. The whole model is compared in test/parity/golden.ts.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { LanguageModel } from "../../../src/instructblip/model/language_model.ts";
import { traceOutputs } from "../../../src/modules/observer.ts";
import { Weights } from "../../../src/modules/weights.ts";
import type { Device } from "../../../src/tensor/device/device.ts";
import { Checkpoint } from "../../../src/tensor/files/checkpoint.ts";
import { NodeFolder } from "../../../src/tensor/files/source.node.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { expectClose } from "../../compare.ts";
import { Golden } from "../../parity/golden.ts";
import { TOLERANCES } from "../../tolerances.ts";

type Make = (weights: Weights, text_config: unknown) => LanguageModel;

/** A golden's language model with its weights, and the prompt PyTorch gave it. */
export class LanguageModelGolden {
  readonly golden: Golden;
  readonly model: LanguageModel;
  readonly device: Device;
  readonly weights: Weights;

  private constructor(golden: Golden, model: LanguageModel, weights: Weights) {
    this.golden = golden;
    this.model = model;
    this.device = weights.device;
    this.weights = weights;
  }

  static async open(folder: string, device: Device, make: Make): Promise<LanguageModelGolden> {
    const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8")) as { text_config: unknown };
    const checkpoint = await Checkpoint.open(new NodeFolder(folder));
    const weights = Weights.open(checkpoint, device);
    const model = make(weights.at("language_model"), config.text_config);
    await weights.load();
    await checkpoint.close();
    return new LanguageModelGolden(await Golden.open(folder), model, weights);
  }

  async close(): Promise<void> {
    this.weights.dispose();
    await this.golden.close();
  }

  /** Names under language_model that nothing asked for. */
  get leftovers(): string[] {
    return this.weights.leftovers().filter((name) => name.startsWith("language_model."));
  }

  async prompt() {
    const { data, shape } = await this.golden.floats("inputs_embeds");
    return { inputs_embeds: this.device.tensor(data, shape), attention_mask: await this.golden.rows("attention_mask") };
  }

  async decoderInputIds(): Promise<number[][] | undefined> {
    return this.model.is_encoder_decoder ? await this.golden.rows("decoder_input_ids") : undefined;
  }

  /** Compares the output of every module the golden has, and puts PyTorch's in its place. @returns how many there were */
  async climbModules(): Promise<number> {
    const paths = this.golden.json.modules.filter(
      (path) => /^language_model\b/.test(path) && !/dropout(#\d+)?$/.test(path) && this.golden.has(`output:${path}`),
    );
    const expected = new Map<string, Float32Array>();
    for (const path of paths) expected.set(path, (await this.golden.floats(`output:${path}`)).data);
    const [prompt, ids] = [await this.prompt(), await this.golden.rows("input_ids")];
    const decoder_input_ids = await this.decoderInputIds();
    const { outputs } = await traceOutputs(
      this.device,
      () => {
        this.model.embed(this.device.tensor(Uint32Array.from(ids.flat()), [ids.length, ids[0].length]));
        this.model.forward(prompt, { decoder_input_ids });
      },
      (path, output) => {
        const theirs = expected.get(path);
        return theirs?.length === output.size ? (this.device.tensor(theirs, output.shape) as Tensor<"f32">) : undefined;
      },
    );
    for (const path of paths) {
      const ours = outputs.get(path);
      if (!ours) throw new Error(`our model does not have ${path}`);
      expectClose(ours.data, expected.get(path)!, TOLERANCES.module, path);
    }
    return paths.length;
  }

  /** Compares the logits of an untraced pass. */
  async climbLogits(): Promise<void> {
    const decoder_input_ids = await this.decoderInputIds();
    const { logits } = this.model.forward(await this.prompt(), { decoder_input_ids });
    expectClose(await logits.read(), (await this.golden.floats("logits")).data, TOLERANCES.free_running, "logits");
  }

  /**
   * Writes PyTorch's greedy answer, and compares every step's logits and the token they choose.
   *
   * @param reorder what each step's rows go on from; the prompts' rows at first, one each
   */
  async climbGreedy(reorder?: (step: number, rows: number) => readonly number[]): Promise<void> {
    const { data, shape } = await this.golden.floats("greedy.logits");
    const [steps, B, V] = shape;
    const sequences = await this.golden.rows("greedy.sequences");
    const answers = sequences.map((row) => row.slice(-steps));
    const prompt = await this.prompt();
    const decoding = this.model.begin(B, sequences[0].length);
    const likeliest = (logits: Float32Array) => logits.indexOf(Math.max(...logits));
    let prompts = Array.from({ length: B }, (_, b) => b); // of every row
    try {
      for (let step = 0; step < steps; step++) {
        const previous = Uint32Array.from(prompts, (b) => answers[b][step - 1] ?? 0);
        const logits = await this.device.scope(() =>
          (step === 0
            ? decoding.prefill(prompt)
            : decoding.step(this.device.tensor(previous, [prompts.length]))
          ).read(),
        );
        for (const [row, b] of prompts.entries()) {
          const label = `logits of prompt ${b} in row ${row}, step ${step}`;
          const ours = logits.subarray(row * V, (row + 1) * V);
          const theirs = data.subarray((step * B + b) * V, (step * B + b + 1) * V);
          expectClose(ours, theirs, TOLERANCES.free_running, label);
          if (likeliest(ours) !== likeliest(theirs)) throw new Error(`${label}: another token is the likeliest`);
        }
        if (!reorder) continue;
        const order = reorder(step, prompts.length);
        decoding.reorder(order);
        prompts = order.map((row) => prompts[row]);
      }
    } finally {
      decoding.dispose();
      prompt.inputs_embeds.dispose();
    }
  }
}
