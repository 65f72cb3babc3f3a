/** A log-probability as a probability in percent: `98.8 %`, `0.07 %`, `3e-7`. Pure. */
export function percentOf(logprob: number): string {
  const p = Math.exp(logprob);
  if (p === 0 || p === 1) return `${100 * p} %`;
  if (p > 0.9995 && p < 1) return ">99.9 %";
  if (p >= 0.0995) return `${(100 * p).toFixed(1)} %`;
  return p >= 1e-4 ? `${(100 * p).toPrecision(2)} %` : p.toExponential(0);
}
