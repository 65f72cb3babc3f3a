// Functions whose WGSL builtins are missing or not accurate enough on every driver (exp is up to 17 ULP off on software
// adapters, tanh loses relative accuracy near 0 and is NaN beyond 88 on one, log may be off by 2^-21 near 1). Coefficients:
// our own Chebyshev fits in 40 digits, with errors measured in f32 over the whole range. Polynomials are evaluated in pairs,
// for shorter dependency chains: software adapters do not hide latency.

// e^x within 2 ULP where the result is a normal number; 0 below, +max above.
fn exp_accurate(x: f32) -> f32 {
  // Not clamp(), which turns NaN into a number.
  let clamped = select(select(x, -87.3, x < -87.3), 88.7, x > 88.7);
  let k = exponent_of(clamped);
  // 2^k in two factors, because k = 128 has no f32 of its own.
  let half = k >> 1u;
  let y = exp_rest(clamped, k) * power_of_two(half) * power_of_two(k - half);
  return select(y, 0.0, x < -87.3);
}

// The same for x <= 0, in fewer steps.
fn exp_negative(x: f32) -> f32 {
  let clamped = select(x, -87.3, x < -87.3);
  let k = exponent_of(clamped);
  return select(exp_rest(clamped, k) * power_of_two(k), 0.0, x < -87.3);
}

// The integer nearest to log2 e^x. Adding 1.5·2^23 rounds to it and leaves it in the lowest bits: round() and i32() cost
// software adapters more than the polynomial. The sum cannot be optimised away, as its bits are used.
fn exponent_of(x: f32) -> i32 {
  return bitcast<i32>(x * 1.4426950408889634 + 12582912.0) - 0x4b400000;
}

// e^x / 2^k
fn exp_rest(x: f32, k: i32) -> f32 {
  // ln 2 in two parts: k times the first is exact.
  let r = (x - f32(k) * 0.693145751953125) - f32(k) * 1.428606765330187e-6;
  let r2 = r * r;
  let high = (0.04166635 + r * 0.008375126) + r2 * 0.0013941108;
  return 1.0 + (r + r2 * ((0.5 + r * 0.16666416) + r2 * high));
}

// ln x within 1 ULP for normal x > 0; nothing useful for other x.
fn log_accurate(x: f32) -> f32 {
  // x = (1 + f) 2^k with 1 + f from √½ to √2: 0x3f3504f3 is √½.
  let k = (bitcast<i32>(x) - 0x3f3504f3) >> 23u;
  let f = bitcast<f32>(bitcast<i32>(x) - (k << 23u)) - 1.0;
  // ln(1 + f) = 2 artanh s = 2s + s R, ordered so that f alone is exact and the rest corrects it.
  let s = f / (2.0 + f);
  let z = s * s;
  let R = z * (0.66666687 + z * (0.39988756 + z * 0.29580986));
  let h = 0.5 * f * f;
  return f32(k) * 0.693145751953125 + (f - (h - (s * (h + R) + f32(k) * 1.428606765330187e-6)));
}

fn power_of_two(k: i32) -> f32 {
  return bitcast<f32>(u32(k + 127) << 23u);
}

// x Φ(x), the exact GELU of ViT, BERT and InstructBLIP's T5: within 1 ULP of the larger of x and its result. It is max(x, 0) -
// |x| Φ(-|x|), and what is subtracted is |x| / 2 divided by the 16th power of a polynomial 1 + r, which grows as fast as
// Φ(-|x|) falls. r is kept separate from 1 while it is squared, (1 + r)² = 1 + r (2 + r): near 0 adding 1 would lose its
// digits. The form is Abramowitz and Stegun's 7.1.28 for erf.
fn gelu(x: f32) -> f32 {
  let a = select(abs(x), 10.0, abs(x) > 10.0); // for infinity the quotient would be NaN; a NaN is kept by x
  let a2 = a * a;
  let low = (0.04986783 + a * 0.021137126) + a2 * (0.0032867347 + a * 3.0677184e-5);
  let high = (4.876122e-5 + a * 8.273344e-6) + a2 * (a * 1.717978e-7 - 1.2928993e-6);
  let r = a * (low + (a2 * a2) * high);
  let r2 = r * (2.0 + r);
  let r4 = r2 * (2.0 + r2);
  let r8 = r4 * (2.0 + r4);
  return select(x, 0.0, x < 0.0) - 0.5 * a / (1.0 + r8 * (2.0 + r8));
}

// 1 / (1 + e^-x)
fn sigmoid(x: f32) -> f32 {
  let e = exp_negative(-abs(x));
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

// The tanh approximation, "gelu_new": 0.5x(1 + tanh u) = x σ(2u).
fn gelu_tanh(x: f32) -> f32 {
  return x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x));
}

fn silu(x: f32) -> f32 {
  return x * sigmoid(x);
}
