/** The figures of `npm run quality` as JSON, by snake_case names. Pure. */
import type { GATES, Quality } from "./quantized.ts";

export function qualityJson(
  adapter: string,
  questions: number,
  rows: readonly Quality[],
  gates: typeof GATES = {},
): string {
  const modes = rows.map(({ dtype, tokens, meanKl, kl99, maxKl, top1, sameAnswers, accuracy }) => {
    const gate = gates[dtype];
    return {
      ...{ dtype, tokens, mean_kl: meanKl, kl_99: kl99, max_kl: maxKl, top_1: top1 },
      ...{ same_answers: sameAnswers, accuracy, gate: gate ? { mean_kl: gate.meanKl, top_1: gate.top1 } : null },
    };
  });
  return `${JSON.stringify({ adapter, questions, modes }, null, 1)}\n`;
}
