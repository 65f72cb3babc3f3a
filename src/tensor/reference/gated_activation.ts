/** activate(gate) * up in f64; `activate` is one of reference/activation.ts. */
export function gatedActivation(
  gate: ArrayLike<number>,
  up: ArrayLike<number>,
  activate: (x: number) => number,
): Float64Array {
  return Float64Array.from(gate, (g, i) => activate(g) * up[i]!);
}
