/** The output of `evaluate` and `merge`: scores and settings. */

import type { Settings } from "../evaluation/prediction_file.ts";
import { overridesOf } from "../evaluation/preset_of_task.ts";
import type { Figure, Summary } from "../evaluation/summary.ts";
import type { TaskRanking } from "../evaluation/task.ts";
import { formatTable } from "./format.ts";

/** One line of JSON. */
export function reportJson(summary: Summary, settings: Settings): string {
  return `${JSON.stringify({ ...summary, settings })}\n`;
}

/** As text. */
export function reportText(summary: Summary, settings: Settings): string {
  const { task, shard } = settings;
  const kinds = Object.entries(summary.kinds);
  const rows = [["", "score", "95 % interval", "answered", "failed"], cells("all", summary)];
  for (const [kind, figure] of kinds) rows.push(cells(kind, figure));
  const overrides = overridesOf(task);
  const isLavis = task.preset?.startsWith("lavis-") && overrides.length === 0;
  const facts = [
    ["task", task.preset && task.preset !== task.name ? `${task.name} (${task.preset})` : task.name],
    ["metric", `${summary.metric}, times 100, of answered questions`],
    ["prompt", JSON.stringify(task.prompt)],
    task.ranking ? ["ranked", rankedText(task.ranking)] : ["generation", JSON.stringify(task.generation)],
    ...(overrides.length > 0 ? [["overridden", `${overrides.join(", ")} of the preset`]] : []),
    ...(task.lavis ? [["lavis", isLavis ? "to the token" : "true"]] : []),
    ...(task.image_transform ? [["images", task.image_transform]] : []),
    [
      "model",
      `${settings.model}, weights as ${settings.dtype}${settings.compute_dtype ? `, computed in ${settings.compute_dtype}` : ""}${settings.kv_cache_dtype ? `, cache as ${settings.kv_cache_dtype}` : ""}`,
    ],
    ["data", `${settings.data}, ${settings.questions} question${settings.questions === 1 ? "" : "s"}`],
  ];
  if (shard.n > 1) facts.push(["part", `${shard.i}/${shard.n}: figures of this part alone`]);
  return `${formatTable(rows, [1, 2, 3, 4])}\n${formatTable(facts)}`;
}

function rankedText({ candidates, reduction, eos, n_segments }: TaskRanking): string {
  const what = typeof candidates === "string" ? `each question's ${candidates}` : `${candidates.length} candidates`;
  const end = eos === null ? "" : `, end token ${eos}`;
  const segments = n_segments === 1 ? "" : `, in ${n_segments} segments`;
  return `${what}, by the ${reduction} of their tokens' log-probabilities${end}${segments}`;
}

function cells(name: string, { score, interval, count, failed }: Figure): string[] {
  const range = interval ? interval.map((end) => end.toFixed(2)).join(" … ") : "-";
  return [name, score === null ? "-" : score.toFixed(2), range, String(count), String(failed)];
}
