/** `profile`: a load and an answer, launch by launch, as a table, JSON and a trace for Perfetto. */
import type { StorageDType } from "../../../modules/storage_dtype.ts";
import { openDevice } from "../../../tensor/device/open_device.ts";
import type { ComputeDType } from "../../../tensor/dtype.ts";
import { measureLimits } from "../../../tensor/limits.ts";
import type { Device, ProfileClock } from "../../../tensor/tensor.ts";
import type { GenerationOptions } from "../../generation/options.ts";
import { type ModelProfile, profile } from "../../instruments/profile/profile.ts";
import { profileReport } from "../../instruments/profile/report.ts";
import { chromeTrace } from "../../instruments/profile/trace.ts";
import type { FromPretrainedOptions } from "../../pretrained/load.ts";
import type { VisionLanguageModel } from "../../pretrained/vision_language_model.ts";
import { openQuestion } from "../question.node.ts";
import { checkOuts, writeOut } from "../requests/out_file.node.ts";
import { loadModel, loadOptions, type Run } from "../session.node.ts";
import { Progress } from "../terminal.node.ts";
import { profileText } from "./table.ts";

export interface ProfileFlags {
  readonly model: string;
  readonly image: string;
  readonly prompt: string;
  readonly by: "module" | "kernel";
  readonly layers?: boolean;
  /** Rows of the table; 0: all. */
  readonly top?: number;
  /** Files; `-` for JSON on stdout, without the table. */
  readonly json?: string;
  readonly trace?: string;
  readonly clock?: ProfileClock;
  readonly warmUp?: number;
  readonly repeat?: number;
  readonly generation: GenerationOptions;
  readonly dtype: StorageDType;
  readonly computeDtype: ComputeDType;
  readonly kvCacheDtype: "f32" | "f16";
  readonly weightCache?: true | string;
  readonly fixVicunaTokenIds?: boolean;
}

const TOP = 20;

export async function runProfile(flags: ProfileFlags, run: Run): Promise<void> {
  const { json, trace, clock, generation } = flags;
  const { terminal, signal } = run;
  await checkOuts({ "--json": json, "--trace": trace });
  const { folder, processor, inputs } = await openQuestion(flags, run);
  const progress = new Progress(terminal);
  const device = await openDevice();
  let model: VisionLanguageModel | undefined;
  try {
    progress.show("measuring the limits of the adapter …");
    const limits = await measureLimits(device, { clock, signal });
    progress.clear();
    const options: FromPretrainedOptions = {
      device,
      ...loadOptions(flags),
      image_cache: 0, // the answer that is timed encodes its image
    };
    const loaded = await device.profile(
      async () => {
        model = await loadModel(folder, flags.dtype, run, options);
      },
      { clock },
    );
    const answer = (what: string) =>
      model!.generate({
        ...inputs,
        ...generation,
        signal,
        on_token: (step: number) => progress.show(`${what} … token ${step + 1}`),
      });
    for (let i = 0; i < (flags.warmUp ?? 1); i++) await answer("warming up");
    let sequences: number[][] = [];
    const timed: ModelProfile[] = [];
    for (let i = 0; i < (flags.repeat ?? 1); i++) {
      const run = async () => {
        sequences = (await answer("timing")) as number[][]; // return_dict_in_generate is not among the flags
      };
      timed.push(await profile(model!, run, { clock }));
    }
    progress.clear();
    const generated = timed.reduce((best, one) => (launchTime(one) < launchTime(best) ? one : best));
    const phases = [
      { name: "load", profile: { ...loaded, calls: [] } satisfies ModelProfile },
      { name: "generate", profile: generated },
    ];
    const report = {
      ...profileReport(device.caps.description, phases, limits),
      ...{ model: flags.model, image: flags.image, prompt: flags.prompt },
      answer: processor.batch_decode(sequences, { skip_special_tokens: true }),
    };
    const text = `${JSON.stringify(report)}\n`;
    if (json !== undefined && json !== "-") await writeOut("--json", json, text);
    if (trace !== undefined)
      await writeOut("--trace", trace, `${JSON.stringify(chromeTrace(phases, about(device, report)))}\n`);
    await terminal.out(
      json === "-" ? text : profileText(report, { by: flags.by, each: flags.layers ?? false, top: flags.top ?? TOP }),
    );
  } finally {
    progress.clear();
    model?.dispose();
    device.destroy();
  }
}

function launchTime({ launches }: ModelProfile): number {
  return launches.reduce((sum, { ms }) => sum + ms, 0);
}

/** What a trace says of itself. */
function about(device: Device, { clock, model, prompt }: { clock: string; model: string; prompt: string }) {
  return { adapter: device.caps.description, clock, model, prompt };
}
