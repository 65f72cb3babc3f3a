/** The coverage report of live parity, and that it detects missing kinds. */
import { expect, test } from "vitest";
import { coverageOf } from "./coverage.ts";
import type { GoldenJson } from "./golden.ts";

const golden = (
  calls: Record<string, object>,
  asked: readonly string[] = Object.keys(calls),
  interventions?: readonly object[],
  drafts?: readonly object[],
) =>
  ({
    spec: { backbone: "t5", num_query_tokens: 1 },
    generations: Object.entries(calls).map(([name, kwargs]) => ({ name, kwargs, answers: [] })),
    asked: {
      calls: asked,
      states: {},
      drafts,
      ...(interventions && { interventions: [{ call: "greedy", interventions }] }),
    },
  }) as unknown as GoldenJson;

test("options count by themselves and together, those of fixed calls not at all", () => {
  const { lines, missing } = coverageOf([
    golden({ single_min_p: { min_p: 0.1, do_sample: true }, drawn_0: { top_h: 0.2 }, greedy: { max_time: 1 } }, [
      "single_min_p",
      "drawn_0",
    ]),
    golden(
      { drawn_0: { early_stopping: "never", top_h: 0.3 } },
      undefined,
      [
        { op: "zero", steps: [1], index: { token: [0] } },
        { op: "add", at: "heads" },
      ],
      [{ assistant: false, kwargs: { prompt_lookup_num_tokens: 3 } }],
    ),
  ]);
  expect(lines).toEqual([
    "drawn: instructblip 2, t5 2",
    'options: do_sample 1, early_stopping 1, prompt_lookup_num_tokens 1, top_h 2, min_p 1, early_stopping="never" 1',
    "by themselves: min_p 1",
    "interventions: greedy 1, zero 1, add 1, output 1, heads 1, token 1, all 1, steps 1",
  ]);
  for (const name of [
    "max_time",
    "top_h by itself",
    "early_stopping=true",
    "legacy",
    "output_attentions",
    "assistant_model",
    "interventions: mean",
  ]) {
    expect(missing).toContain(name);
  }
  for (const name of [
    "min_p",
    "min_p by itself",
    "t5",
    "prompt_lookup_num_tokens by itself",
    "seed",
    "return_full_text",
  ]) {
    expect(missing).not.toContain(name);
  }
});
