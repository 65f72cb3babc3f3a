/** A comparison as JSON, by snake_case names. What is infinite, or not known, is null. */
import type { Comparison, Row, Side } from "./comparison.ts";
import type { Precision } from "./precision.ts";
import { findingsOf } from "./summary.ts";
import { isInput, moduleOf } from "./trace.ts";

/** One line. @param precision what a bisection of dtypes has found */
export function comparisonJson(comparison: Comparison, precision?: Precision): string {
  const { a, b, tolerance, rows, onlyA, onlyB, isOrdered } = comparison;
  const { first, most, notFinite } = findingsOf(comparison);
  const report = {
    a,
    b,
    tolerance,
    by_itself: comparison.byItself ?? false,
    equal: first === undefined,
    ordered: isOrdered,
    first_different: first?.name ?? null,
    most_added: most?.name ?? null,
    first_not_finite: notFinite?.name ?? null,
    tensors: rows.map(rowJson),
    only_a: onlyA,
    only_b: onlyB,
    ...(precision && { precision: precisionJson(precision) }),
  };
  return `${JSON.stringify(report)}\n`;
}

function precisionJson({ gate, before, tries, found }: Precision) {
  const { more, modules = [], error, dtype } = found ?? {};
  const needed = { more: more ?? null, modules, dtype: dtype ?? null };
  return { gate, before, tries, met: before <= gate, ...needed, nmse: error ?? null };
}

function rowJson({ name, a, b, difference, worst, inherited, added, wrong }: Row) {
  return {
    name,
    module: moduleOf(name),
    at: isInput(name) ? "input" : "output",
    different: wrong ?? null,
    nmse: difference?.nmse ?? null,
    inherited: inherited ?? null,
    added: added ?? null,
    max_abs: difference?.maxAbs ?? null,
    max_abs_at: worst?.at ?? null,
    max_abs_values: worst ? [worst.a, worst.b] : null,
    cosine: difference?.cosine ?? null,
    not_equal_not_finite: difference?.broken ?? null,
    a: sideJson(a),
    b: sideJson(b),
  };
}

function sideJson({ shape, firstNotFinite, statistics: { firstNotFinite: _, ...statistics } }: Side) {
  return { shape, ...statistics, first_not_finite: firstNotFinite ?? null };
}
