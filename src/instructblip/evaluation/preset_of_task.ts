/** A task against its preset: whether the model is one that it is for, and what the task replaces. */
import { InputError } from "../../tensor/errors.ts";
import { shown } from "../../tensor/shown.ts";
import { PRESETS, type PresetModel } from "./presets.ts";
import type { Task } from "./task.ts";

/** `model_type` of the language models. */
const TYPES: Readonly<Record<PresetModel, string>> = { vicuna: "llama", t5: "t5" };

/**
 * Refuses a preset of another language model: lengths and penalties are not what LAVIS has for this one.
 *
 * @param type `model_type` of config.json's `text_config`
 * @throws InputError BAD_TASK
 */
export function expectPresetModel({ preset: name }: Pick<Task, "preset">, type: string): void {
  const preset = PRESETS[name ?? ""];
  if (preset?.model === undefined || TYPES[preset.model] === type) return;
  const stem = (one: string) => one.replace(/-(vicuna|t5)$/, "");
  const other = Object.entries(PRESETS).find(
    ([one, { model }]) => stem(one) === stem(name!) && model !== undefined && TYPES[model] === type,
  );
  throw new InputError("BAD_TASK", `the preset "${name}" is of ${TYPES[preset.model]}, the model of ${shown(type)}`, {
    hint: other ? `use "${other[0]}"` : "write its prompt and generation into the task, without the preset",
  });
}

/** The fields in which a task differs from its preset: `["metric", "generation.num_beams"]`. */
export function overridesOf(task: Task): string[] {
  const preset = PRESETS[task.preset ?? ""];
  if (!preset) return [];
  const differs = (given: unknown, published: unknown) => JSON.stringify(given) !== JSON.stringify(published);
  const fields = (["prompt", "metric", "lavis", "image_transform"] as const).filter((field) =>
    differs(task[field], preset[field]),
  );
  if ((preset.candidates !== undefined) !== (task.ranking !== undefined)) return [...fields, "mode"];
  if (task.ranking) {
    const { candidates, reduction, eos, n_segments } = task.ranking;
    const isOwn = preset.candidates !== null && differs(candidates, preset.candidates);
    const options = { reduction: reduction !== "sum", eos: eos !== null, n_segments: n_segments !== 1 };
    const changed = Object.entries(options).filter(([, isChanged]) => isChanged);
    return [...fields, ...(isOwn ? ["candidates"] : []), ...changed.map(([option]) => `ranking.${option}`)];
  }
  const published = preset.generation as Record<string, unknown>;
  const changed = Object.entries(task.generation).filter(([option, value]) => differs(value, published[option]));
  return [...fields, ...changed.map(([option]) => `generation.${option}`)];
}
