/** The activations in f64, with an erf of their own: JavaScript has none. */

/** Each activation by its name in src/tensor/activation.ts. */
export const activation = {
  none: (x: number) => x,
  gelu: (x: number) => x * 0.5 * erfc(-x / Math.SQRT2),
  gelu_tanh: (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (x: number) => (x < 0 ? 0 : x),
  silu: (x: number) => x / (1 + Math.exp(-x)),
  quick_gelu: (x: number) => x / (1 + Math.exp(-1.702 * x)),
};

/** 2/√π ∫₀ˣ e^(-t²) dt. */
export function erf(x: number): number {
  const z = Math.abs(x);
  if (z > 2.5) return Math.sign(x) * (1 - erfc(z));
  // 2/√π e^(-z²) Σ 2^k z^(2k+1) / (2k+1)!!, whose terms are all positive: nothing cancels.
  let term = z;
  let sum = z;
  for (let k = 1; term > 1e-18 * sum; k++) {
    term *= (2 * z * z) / (2 * k + 1);
    sum += term;
  }
  return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * Math.exp(-z * z) * sum;
}

/** 1 - erf(x), exact in the tail too. */
export function erfc(x: number): number {
  if (x < 2.5) return 1 - erf(x);
  // Laplace's continued fraction, from the inside out: e^(-x²)/√π / (x + (1/2)/(x + (2/2)/(x + (3/2)/(x + …
  let fraction = x;
  for (let k = 120; k > 0; k--) fraction = x + k / 2 / fraction;
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * fraction);
}
