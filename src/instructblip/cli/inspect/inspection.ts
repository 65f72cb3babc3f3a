/** The report of `inspect`, as an object for `--json` and as text. Pure: files are read by inspect.node.ts. */
import type { Caps } from "../../../tensor/device/caps.ts";
import { formatBytes } from "../../../tensor/device/memory.ts";
import type { Checkpoint, CheckpointTensor } from "../../../tensor/files/checkpoint.ts";
import { formatShape, sizeOf } from "../../../tensor/shape.ts";
import type { VisionLanguageConfig } from "../../config/config.ts";
import { isDequantized } from "../../pretrained/checkpoint/bitsandbytes.ts";
import { otherCheckpoint, prefixOf, quantizationOf } from "../../pretrained/other_checkpoints.ts";
import { formatCount, formatTable } from "../format.ts";
import { DEFAULT_LIMITS, type MemoryPlan, planMemory } from "./memory_plan.ts";

/** The output of `inspect --json`. Sizes in bytes. */
export interface Inspection {
  readonly name: string;
  readonly model: string;
  readonly config: {
    readonly num_query_tokens: number;
    /** Absent for videos, which have the other. */
    readonly image_token_index?: number | null;
    readonly video_token_index?: number | null;
    readonly vision: Summary;
    readonly qformer: Summary;
    readonly language: Summary;
  };
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
  readonly tensors: Group;
  /** By prefix of the names. */
  readonly parts: readonly (Group & { readonly prefix: string })[];
  readonly dtypes: readonly (Group & { readonly dtype: string })[];
  readonly warnings: readonly string[];
  /** Null if there is none; the plan is then for WebGPU's default limits. */
  readonly adapter: { readonly name: string; readonly software: boolean } | null;
  readonly memory: MemoryPlan;
  /** With `--tensors`. */
  readonly list?: readonly Listed[];
}

type Summary = Readonly<Record<string, string | number | boolean | readonly number[] | null>>;

interface Group {
  readonly count: number;
  readonly parameters: number;
  readonly bytes: number;
}

interface Listed {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly file: string;
}

/** The data read from a checkpoint. */
export interface Inspected {
  readonly name: string;
  readonly config: VisionLanguageConfig;
  readonly checkpoint: Pick<Checkpoint, "tensors" | "warnings" | "made_with">;
  /** Warnings about the folder, besides the checkpoint's. */
  readonly notes?: readonly string[];
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
  readonly caps: Caps | undefined;
  readonly withTensors: boolean;
}

/** In the order of the forward pass; others follow. */
const PARTS = ["vision_model", "query_tokens", "qformer", "language_projection", "language_model"];

export function inspect({ name, config, checkpoint, notes = [], files, caps, withTensors }: Inspected): Inspection {
  const { vision_config: vision, qformer_config: qformer, text_config: text } = config;
  const { sizes } = text;
  const tensors = [...checkpoint.tensors.values()];
  const rank = (prefix: string) => (PARTS.includes(prefix) ? PARTS.indexOf(prefix) : PARTS.length);
  const by = (key: (info: CheckpointTensor) => string) => {
    const groups = new Map<string, CheckpointTensor[]>();
    for (const info of tensors) {
      const group = groups.get(key(info));
      if (group) group.push(info);
      else groups.set(key(info), [info]);
    }
    return [...groups];
  };
  const inspection: Inspection = {
    name,
    model: config.family.architecture,
    config: {
      num_query_tokens: config.num_query_tokens,
      [`${config.modality}_token_index` as const]: config.image_token,
      vision: {
        num_hidden_layers: vision.num_hidden_layers,
        hidden_size: vision.hidden_size,
        intermediate_size: vision.intermediate_size,
        num_attention_heads: vision.num_attention_heads,
        image_size: vision.image_size,
        patch_size: vision.patch_size,
        hidden_act: vision.hidden_act,
      },
      qformer: {
        num_hidden_layers: qformer.num_hidden_layers,
        hidden_size: qformer.hidden_size,
        intermediate_size: qformer.intermediate_size,
        num_attention_heads: qformer.num_attention_heads,
        cross_attention_frequency: qformer.cross_attention_frequency,
        max_position_embeddings: qformer.max_position_embeddings,
        hidden_act: qformer.hidden_act,
      },
      language: {
        model_type: text.model_type,
        ...(sizes.num_encoder_layers > 0 ? { num_encoder_layers: sizes.num_encoder_layers } : {}),
        num_hidden_layers: sizes.num_hidden_layers,
        hidden_size: sizes.hidden_size,
        intermediate_size: sizes.intermediate_size,
        num_attention_heads: sizes.num_attention_heads,
        num_key_value_heads: sizes.num_key_value_heads,
        head_dim: sizes.head_dim,
        vocab_size: text.vocab_size,
        // T5's positions are relative and unlimited.
        ...(Number.isFinite(text.max_position_embeddings)
          ? { max_position_embeddings: text.max_position_embeddings }
          : {}),
        hidden_act: sizes.hidden_act,
        eos_token_id: text.eos_token_id,
        pad_token_id: text.pad_token_id,
      },
    },
    files,
    tensors: groupOf(tensors),
    parts: by((info) => info.name.replace(/\..*/s, ""))
      .sort(([a], [b]) => rank(a) - rank(b))
      .map(([prefix, infos]) => ({ prefix, ...groupOf(infos) })),
    dtypes: by((info) => info.dtype).map(([dtype, infos]) => ({ dtype, ...groupOf(infos) })),
    warnings: [...remarks(checkpoint, config), ...notes, ...checkpoint.warnings],
    adapter: caps ? { name: caps.description, software: caps.isSoftware } : null,
    memory: planMemory(checkpoint.tensors, config, caps ?? DEFAULT_LIMITS),
  };
  if (!withTensors) return inspection;
  return { ...inspection, list: tensors.map(({ name, dtype, shape, file }) => ({ name, dtype, shape, file })) };
}

/** Warnings about a checkpoint before it is loaded. */
function remarks(checkpoint: Inspected["checkpoint"], config: VisionLanguageConfig): string[] {
  const json = (config as unknown as { toJSON(): object }).toJSON();
  const other = otherCheckpoint(checkpoint.tensors, json);
  if (other) return [`the checkpoint is ${other.what}: ${other.hint}`];
  const prefix = prefixOf(checkpoint.tensors);
  if (prefix) return [`${prefix.what}, and none will be found: ${prefix.hint}`];
  const scheme = quantizationOf(json);
  return scheme && !isDequantized(checkpoint)
    ? [`quantization_config (${scheme}) is not followed: the weights are floats`]
    : [];
}

function groupOf(tensors: readonly CheckpointTensor[]): Group {
  return {
    count: tensors.length,
    parameters: tensors.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
    bytes: tensors.reduce((sum, { begin, end }) => sum + end - begin, 0),
  };
}

/** The report as text. */
export function formatInspection(it: Inspection): string {
  const { config, memory } = it;
  const row = (name: string, group: Group) => [
    `  ${name}`,
    `${group.count} ${group.count === 1 ? "tensor" : "tensors"}`,
    `${formatCount(group.parameters)} parameters`,
    formatBytes(group.bytes),
  ];
  const { num_query_tokens: _, vision: __, qformer: ___, language: ____, ...placeholder } = config;
  const sections = [
    `${it.name}: ${it.model}, ${config.language.model_type} language model\n`,
    section("image encoder", config.vision),
    section("Q-Former", { num_query_tokens: config.num_query_tokens, ...config.qformer }),
    section("language model", { ...config.language, ...placeholder }),
    `parts\n${formatTable([...it.parts.map((part) => row(part.prefix, part)), row("all", it.tensors)], [1, 2, 3])}`,
    `dtypes
${formatTable(
  it.dtypes.map((group) => row(group.dtype, group)),
  [1, 2, 3],
)}`,
    `files\n${formatTable(
      it.files.map(({ name, bytes }) => [`  ${name}`, formatBytes(bytes)]),
      [1],
    )}`,
    formatMemory(it, memory),
  ];
  if (it.list) {
    sections.push(
      `tensors\n${formatTable(it.list.map(({ name, dtype, shape }) => [`  ${name}`, dtype, formatShape(shape)]))}`,
    );
  }
  return sections.join("\n");
}

function section(title: string, summary: Summary): string {
  const value = (x: Summary[string]) => (x === null ? "none" : typeof x === "object" ? x.join(", ") : String(x));
  return `${title}\n${formatTable(Object.entries(summary).map(([name, x]) => [`  ${name}`, value(x)]))}`;
}

function formatMemory(
  { adapter, config }: Inspection,
  { binding_limit, weights, kv_cache, activations }: MemoryPlan,
): string {
  const where = adapter
    ? `on ${adapter.name}${adapter.software ? " (software)" : ""}`
    : "no WebGPU adapter was found: this is for the least that WebGPU guarantees";
  const pieces = ({ split, pieces }: MemoryPlan["weights"][number]) =>
    split ? `${split} ${split === 1 ? "matrix" : "matrices"} in ${pieces} pieces` : "none split";
  const what = config.video_token_index === undefined ? "image" : "video of 4 frames";
  const rows = [
    ...weights.map((plan) => [`  weights, --dtype ${plan.dtype}`, formatBytes(plan.bytes), pieces(plan)]),
    ...kv_cache.map(({ dtype, bytes_per_token, max_tokens }) => [
      `  key/value cache, --kv-cache-dtype ${dtype}`,
      formatBytes(bytes_per_token),
      `per token; at most ${max_tokens} tokens in a row`,
    ]),
    [
      "  activations",
      `${formatBytes(activations.bytes_estimated)}`,
      `about, for one ${what} and ${activations.prompt_tokens} tokens`,
    ],
    ["  largest binding", formatBytes(binding_limit), ""],
  ];
  return `GPU memory (${where})\n${formatTable(rows, [1])}`;
}
