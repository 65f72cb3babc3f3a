/** Traces of a model that is loaded for them: those of `trace`, and the live settings of `compare`. */
import { createGPU, requestBestAdapter } from "../../../tensor/device/gpu.node.ts";
import { setTunedPlanProvider } from "../../../tensor/device/gpu.ts";
import { openDevice } from "../../../tensor/device/open_device.ts";
import {
  type Op,
  type PlanOverride,
  runnableVariants,
  sizeClasses,
  type TunedPlan,
  VARIANTS,
} from "../../../tensor/device/plan.ts";
import { readTunedPlan } from "../../../tensor/device/tuned_plan.node.ts";
import { DeviceError, InputError } from "../../../tensor/errors.ts";
import type { Device } from "../../../tensor/tensor.ts";
import { type HostTensor, LiveTrace, type LiveTraceOptions, type PassResult } from "../../compare/live_trace.ts";
import type { Setting } from "../../compare/setting.ts";
import type { TextConfig } from "../../config/config.ts";
import type { VisionLanguageModel } from "../../pretrained/vision_language_model.ts";
import { readInterventions } from "../interventions.node.ts";
import { openQuestion } from "../question.node.ts";
import { loadModel, type Run } from "../session.node.ts";

/** What is traced. */
export interface Question {
  readonly model: string;
  readonly image: string;
  readonly prompt: string;
  readonly decoderInputIds?: readonly number[] | undefined;
  /** Passes of generate() in place of one of forward(). */
  readonly steps?: number | undefined;
  /** A folder, or true for the usual one. */
  readonly weightCache?: true | string | undefined;
}

/** A trace that is to be closed. */
export interface OpenTrace {
  readonly trace: LiveTrace;
  close(): void;
}

export type TraceDetails = Pick<LiveTraceOptions, "replace" | "only" | "windowBytes">;

/** Loads a model as a setting says, and runs the pass once. */
export async function openLiveTrace(
  setting: Setting,
  question: Question,
  run: Run,
  details: TraceDetails = {},
): Promise<OpenTrace> {
  const interventions = await readInterventions(setting.interventions);
  const { image, prompt } = question;
  const { folder, config, inputs } = await openQuestion({ model: setting.model ?? question.model, image, prompt }, run);
  const ids = decoderIds(question.decoderInputIds, config.text_config);
  const device = await openDeviceOf(setting);
  let model: VisionLanguageModel | undefined;
  const close = () => {
    model?.dispose();
    device.destroy();
  };
  try {
    model = await loadModel(folder, setting.dtype ?? "auto", run, {
      device,
      compute_dtype: setting.compute_dtype ?? "f32",
      kv_cache_dtype: setting.kv_cache_dtype ?? "f32",
      weight_cache: question.weightCache ?? false,
    });
    const loaded = model;
    const { steps } = question;
    const pass =
      steps === undefined
        ? () => forward(loaded, { ...inputs, decoder_input_ids: ids, interventions })
        : () => generate(loaded, { ...inputs, interventions }, steps);
    const given = givenOf({ ...inputs, ...(ids && steps === undefined && { decoder_input_ids: ids }) });
    const trace = await LiveTrace.open({ ...details, label: setting.text, device, given, run: pass });
    return {
      trace,
      close: () => {
        trace.close();
        close();
      },
    };
  } catch (error) {
    close();
    throw error;
  }
}

type Inputs = Parameters<VisionLanguageModel["forward"]>[0];

async function forward(model: VisionLanguageModel, inputs: Inputs): Promise<PassResult> {
  const output = await model.forward(inputs);
  const results = {
    "vision_outputs.last_hidden_state": output.vision_outputs.last_hidden_state,
    "qformer_outputs.last_hidden_state": output.qformer_outputs.last_hidden_state,
    image_features: output.image_features,
    logits: output.logits,
  };
  return { results, output };
}

/** Passes of greedy search, which no end token ends. */
async function generate(model: VisionLanguageModel, inputs: Inputs, steps: number): Promise<PassResult> {
  const rows = await model.generate({ ...inputs, max_new_tokens: steps, min_new_tokens: steps, num_beams: 1 });
  const sequences = model.device.tensor(Uint32Array.from(rows.flat()), [rows.length, rows[0]!.length]);
  return { results: { sequences }, output: { sequences } };
}

/** A pass's inputs, as tensors of the trace. */
function givenOf(inputs: Readonly<Record<string, unknown>>): Record<string, HostTensor> {
  const given: Record<string, HostTensor> = {};
  for (const [name, value] of Object.entries(inputs)) {
    if (Array.isArray(value) && Array.isArray(value[0])) {
      const rows = value as readonly (readonly number[])[];
      given[name] = { shape: [rows.length, rows[0]!.length], data: Uint32Array.from(rows.flat()) };
    } else if ((value as HostTensor | null)?.data instanceof Float32Array) {
      given[name] = value as HostTensor;
    }
  }
  return given;
}

/** The device of a setting. @throws InputError PLAN; DeviceError */
async function openDeviceOf({ adapter, plan }: Setting): Promise<Device> {
  for (const op of Object.keys(plan ?? {})) {
    if (Object.hasOwn(VARIANTS, op)) continue;
    throw new InputError("PLAN", `plan: ${op} has kernels of one's own, which are forced by INSTRUCTBLIP_PLAN alone`);
  }
  setTunedPlanProvider(plan ? () => planOf(plan) : readTunedPlan);
  let device: Device;
  try {
    device = await openDevice(adapter === undefined ? {} : { adapter: await adapterNamed(adapter) });
  } finally {
    setTunedPlanProvider(readTunedPlan);
  }
  for (const [op, variant] of Object.entries(plan ?? {})) {
    if ((runnableVariants(op as Op, device.caps) as readonly string[]).includes(variant)) continue;
    const { description } = device.caps;
    device.destroy();
    throw new InputError("PLAN", `plan: ${description} cannot run ${op}=${variant}`);
  }
  return device;
}

/** An override as a plan for every size: one process may have two. */
function planOf(override: PlanOverride): TunedPlan {
  const classes = Object.entries(override).map(([op, variant]) => [
    op,
    Object.fromEntries(sizeClasses(op as Op).map((size) => [size, variant])),
  ]);
  return Object.fromEntries(classes);
}

async function adapterNamed(name: string): Promise<GPUAdapter> {
  const adapter = await requestBestAdapter(createGPU({ adapter: name }));
  if (!adapter) throw new DeviceError("NO_ADAPTER", `no adapter has "${name}" in its name`);
  return adapter;
}

/** Decoder input ids of T5: those given, else the start token. Undefined for a decoder-only model. */
function decoderIds(given: readonly number[] | undefined, text: TextConfig): number[][] | undefined {
  if (text.model_type === "t5") return [[...(given ?? [text.decoderStartTokenId ?? 0])]];
  if (given === undefined) return undefined;
  throw new InputError(
    "DECODER_INPUT_IDS",
    `--decoder-input-ids: the language model (${text.model_type}) has no decoder of its own`,
    { hint: "it is for encoder-decoder models such as T5; leave it out" },
  );
}
