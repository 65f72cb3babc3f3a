/** The presets as a list, for `evaluate --list-presets` and docs/presets.md. */
import { PRESETS, type Preset } from "./presets.ts";

export interface PresetRow {
  readonly name: string;
  readonly prompt: string;
  /** What resizing does to images. */
  readonly images: string;
  /** Generation options, or what is ranked. */
  readonly answers: string;
  readonly metric: string;
  readonly source: string;
}

export function presetRows(): PresetRow[] {
  return Object.entries(PRESETS).map(([name, preset]) => ({
    name,
    prompt: preset.prompt,
    images: preset.image_transform ?? "the model's",
    answers: answersOf(preset),
    metric: preset.metric,
    source: preset.source,
  }));
}

function answersOf({ candidates, generation }: Preset): string {
  if (candidates === null) return "ranks candidates of the task";
  if (typeof candidates === "string") return `ranks {${candidates}}`;
  if (candidates !== undefined) return `ranks ${candidates.map((texts) => texts.join(" = ")).join(", ")}`;
  return Object.entries(generation)
    .map(([option, value]) => `${option} ${value}`)
    .join(", ");
}

/** For a terminal. */
export function presetsText(): string {
  const lines = presetRows().flatMap(({ name, prompt, images, answers, metric, source }) => [
    name,
    `  prompt   ${JSON.stringify(prompt)}`,
    `  images   ${images}`,
    `  answers  ${answers}`,
    `  metric   ${metric}`,
    `  from     ${source}`,
  ]);
  return `${lines.join("\n")}\n`;
}
