// Generated from kernels/**/*.wgsl by `npm run kernels`. Do not edit.
export const KERNELS: Readonly<Record<string, string>> = {
  "activation": `// y = activate(x), element by element.
//
// x: f32[n]  ->  y: f32[n]
// One invocation four elements; the last may reach into the padding every buffer has up to 16 bytes.
// Dispatch: ceil(n / 4 / WG), folded. Needs: nothing.
// @use activation
override WG: u32 = 64;

struct Params {
  groups: u32, // ceil(n / 4)
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * WG + lane;
  if (i >= params.groups) {
    return;
  }
  let v = x[i];
  y[i] = vec4<f32>(activate(v.x), activate(v.y), activate(v.z), activate(v.w));
}
`,
  "copy": `// y[dst(i)] = x[src(i)]: moves a strided view of up to five dimensions into a strided place. Bits are moved, not numbers,
// so it serves f32 and u32 alike and keeps NaN payloads.
//
// x: u32[any]  ->  y: u32[any], of which only the destination is written
// One invocation an element of shape [n0, n1, n2, n3, n4]; strides and offsets count elements.
// Dispatch: ceil(n0·n1·n2·n3·n4 / WG), folded. Needs: nothing.
override WG: u32 = 64;

struct Params {
  size: u32,
  n1: u32,
  n2: u32,
  n3: u32,
  n4: u32,
  x_offset: u32,
  x0: u32,
  x1: u32,
  x2: u32,
  x3: u32,
  x4: u32,
  y_offset: u32,
  y0: u32,
  y1: u32,
  y2: u32,
  y3: u32,
  y4: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * WG + lane;
  if (i >= params.size) {
    return;
  }
  let i4 = i % params.n4;
  let r3 = i / params.n4;
  let i3 = r3 % params.n3;
  let r2 = r3 / params.n3;
  let i2 = r2 % params.n2;
  let r1 = r2 / params.n2;
  let i1 = r1 % params.n1;
  let i0 = r1 / params.n1;
  let src = params.x_offset + i0 * params.x0 + i1 * params.x1 + i2 * params.x2 + i3 * params.x3 + i4 * params.x4;
  let dst = params.y_offset + i0 * params.y0 + i1 * params.y1 + i2 * params.y2 + i3 * params.y3 + i4 * params.y4;
  y[dst] = x[src];
}
`,
  "layer_norm": `// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, each row by itself, variance biased.
//
// x: f32[R, D]  weight, bias: f32[D]  ->  y: f32[R, D]
// One workgroup a row; its threads stride over D. Two passes over the row (the mean, then the squared distances from it):
// E[x²] - E[x]² loses everything when the mean is large.
// Dispatch: R workgroups, folded. Needs: nothing.
// Source: Ba et al. 2016, Layer Normalization; torch.nn.LayerNorm.
override WG: u32 = 64;

struct Params {
  rows: u32,
  D: u32,
  eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> params: Params;

var<workgroup> partial: array<f32, WG>;

// Sum of value over the workgroup's threads. WG is a power of two.
fn sum_over_threads(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
    workgroupBarrier();
  }
  let total = partial[0];
  workgroupBarrier(); // before the next sum overwrites it
  return total;
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) {
    return;
  }
  let start = row * params.D;

  var sum = 0.0;
  for (var i = lane; i < params.D; i += WG) {
    sum += x[start + i];
  }
  let mean = sum_over_threads(lane, sum) / f32(params.D);

  var squares = 0.0;
  for (var i = lane; i < params.D; i += WG) {
    let distance = x[start + i] - mean;
    squares += distance * distance;
  }
  let variance = sum_over_threads(lane, squares) / f32(params.D);
  let scale = 1.0 / sqrt(variance + params.eps);

  for (var i = lane; i < params.D; i += WG) {
    y[start + i] = (x[start + i] - mean) * scale * weight[i] + bias[i];
  }
}
`,
  "lib/activation": `// The activation of a feed-forward layer: a kernel asks for it by "@use activation" and calls activate(x). ACTIVATION is
// a code of src/tensor/activation.ts; as an override, it leaves only the branch taken in the pipeline. NaN in, NaN out
// (where the driver computes with NaN).
// @use math
override ACTIVATION: u32 = 0;

fn activate(x: f32) -> f32 {
  switch ACTIVATION {
    case 1u: {
      return gelu(x);
    }
    case 2u: {
      return gelu_tanh(x);
    }
    case 3u: {
      return select(x, 0.0, x < 0.0); // max(x, 0) would turn NaN into 0
    }
    case 4u: {
      return silu(x);
    }
    case 5u: {
      return x * sigmoid(1.702 * x);
    }
    default: {
      return x;
    }
  }
}
`,
  "lib/math": `// Functions whose WGSL builtins are missing or not accurate enough on every driver (exp is up to 17 ULP off on software
// drivers, tanh loses relative accuracy near 0 and is NaN beyond 88 on one). Coefficients: our own Chebyshev fits in 40
// digits, the errors measured in f32 over the whole range.

// e^x within 2 ULP where the result is a normal number; 0 below, +max above.
fn exp_accurate(x: f32) -> f32 {
  let clamped = clamp(x, -87.3, 88.7);
  let k = round(clamped * 1.4426950408889634);
  // ln 2 in two parts: k times the first is exact.
  let r = (clamped - k * 0.693145751953125) - k * 1.428606765330187e-6;
  let p = 1.0 + r * (1.0 + r * (0.5 + r * (0.16666416 + r * (0.04166635 + r * (0.008375126 + r * 0.0013941108)))));
  // 2^k in two factors, because k = 128 has no f32 of its own.
  let half = i32(k) / 2;
  let y = p * power_of_two(half) * power_of_two(i32(k) - half);
  return select(y, 0.0, x < -87.3);
}

fn power_of_two(k: i32) -> f32 {
  return bitcast<f32>(u32(k + 127) << 23u);
}

// 1 - erf(z) for z >= 0, relative error below 4e-7 up to z = 9, where it is 0 in f32 anyway.
// erfc(z) = exp(-z²) t P(t), t = 1 / (1 + z/2).
fn erfc_positive(z: f32) -> f32 {
  let t = 1.0 / (1.0 + 0.5 * z);
  let p = 0.28208268 + t * (0.28244504 + t * (0.24257289 + t * (0.20485365 + t * (-0.03184176 + t * (0.2856977
    + t * (-0.49386364 + t * (0.28776830 + t * -0.05971492)))))));
  return exp_accurate(-z * z) * t * p;
}

// x Φ(x), the exact GELU of ViT, BERT and InstructBLIP's T5.
fn gelu(x: f32) -> f32 {
  let tail = 0.5 * erfc_positive(abs(x) * 0.7071067811865476);
  return x * select(tail, 1.0 - tail, x >= 0.0);
}

// 1 / (1 + e^-x)
fn sigmoid(x: f32) -> f32 {
  let e = exp_accurate(-abs(x));
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

// The tanh approximation, "gelu_new": 0.5x(1 + tanh u) = x σ(2u).
fn gelu_tanh(x: f32) -> f32 {
  return x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x));
}

fn silu(x: f32) -> f32 {
  return x * sigmoid(x);
}
`,
  "lib/weight_bf16": `// Weight loader, bf16 stored as pairs in u32. A bf16 is the upper half of an f32: widening is a shift.
@group(0) @binding(1) var<storage, read> weight: array<vec2<u32>>;

fn load_weight(i: u32) -> vec4<f32> {
  let bits = weight[i];
  return bitcast<vec4<f32>>(vec4<u32>(bits.x << 16u, bits.x & 0xffff0000u, bits.y << 16u, bits.y & 0xffff0000u));
}
`,
  "lib/weight_f16": `// Weight loader, f16 stored as pairs in u32. unpack2x16float needs no GPU feature, and is as fast as native f16 loads.
@group(0) @binding(1) var<storage, read> weight: array<vec2<u32>>;

fn load_weight(i: u32) -> vec4<f32> {
  let bits = weight[i];
  return vec4<f32>(unpack2x16float(bits.x), unpack2x16float(bits.y));
}
`,
  "lib/weight_f32": `// Weight loader, f32. A weight is [N, K] with rows padded to K4 = ceil(K / 4) groups of four; index i counts groups.
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;

fn load_weight(i: u32) -> vec4<f32> {
  return weight[i];
}
`,
};
