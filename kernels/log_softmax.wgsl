// y = x - max(x) - ln Σ e^(x - max(x)), each row by itself.
//
// x: f32[R, V], also compared as bits  ->  y: f32[R, V], as bits
// One workgroup a row; its threads stride over V. Each adds up runs of 32 numbers, then the runs: the sum's error is the
// logarithm's, and one long f32 sum would lose digits that count.
// Minus infinity stays what it is. A row with a NaN or plus infinity, or of nothing but minus infinity, becomes NaN. All
// this is told from bits, on every driver alike.
// Dispatch: R workgroups, folded. Needs: nothing.
// Source: torch.log_softmax.
// @use math
override WG: u32 = 64;

const RUN = 32u;
const MINUS_INFINITY = 0xff800000u;
const NAN = 0x7fc00000u;

struct Params {
  rows: u32,
  V: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(1) @binding(0) var<uniform> params: Params;

var<workgroup> keys: array<u32, WG>;
var<workgroup> partial: array<f32, WG>;

// Grows with the float that has these bits; largest for NaN.
fn key(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return 0xffffffffu;
  }
  return select(0x80000000u + magnitude, 0x80000000u - magnitude, bits > 0x80000000u);
}

// The float whose key this is.
fn float_of(key: u32) -> f32 {
  return bitcast<f32>(select((0x80000000u - key) | 0x80000000u, key - 0x80000000u, key >= 0x80000000u));
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
  let start = row * params.V;

  var largest = 0u;
  for (var i = lane; i < params.V; i += WG) {
    largest = max(largest, key(x[start + i]));
  }
  keys[lane] = largest;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      keys[lane] = max(keys[lane], keys[lane + half]);
    }
    workgroupBarrier();
  }
  let top = keys[0];
  let finite = top > key(MINUS_INFINITY) && top < key(0x7f800000u);
  let shift = select(0.0, float_of(top), finite);

  var sum = 0.0;
  for (var first = lane; first < params.V; first += RUN * WG) {
    var run = 0.0;
    for (var i = first; i < min(first + RUN * WG, params.V); i += WG) {
      let bits = x[start + i];
      if (finite && bits != MINUS_INFINITY) {
        run += exp_accurate(bitcast<f32>(bits) - shift);
      }
    }
    sum += run;
  }
  partial[lane] = sum;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
    workgroupBarrier();
  }
  let log_sum = log_accurate(partial[0]);

  for (var i = lane; i < params.V; i += WG) {
    let bits = x[start + i];
    let value = bitcast<u32>((bitcast<f32>(bits) - shift) - log_sum);
    y[start + i] = select(NAN, select(value, MINUS_INFINITY, bits == MINUS_INFINITY), finite);
  }
}
