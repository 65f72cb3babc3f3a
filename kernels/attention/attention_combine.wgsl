// y[b, t, h] = Σₚ e^(largestₚ - largest) o[b, t, h, p] / Σₚ e^(largestₚ - largest) sumₚ, with largest = maxₚ largestₚ: combines
// the splits p of attention_split.wgsl that have keys which query t sees. A query that sees no key gets zeros.
//
// o: f32[B, T, H, P, d]  stats: f32[B, T, H, P, 2], largestₚ and sumₚ  mask: u32[B, S], not read  past: u32[1]
// -> y: f32[B, T, H, d]
// One invocation an element of y. Each computes the weights e^(largestₚ - largest) of its P splits.
// Dispatch: ceil(B·T·H·d / WG), folded. Needs: nothing.
// @use attention
// @use math
override WG: u32 = 64;
override KEYS: u32 = 512; // as in attention_split.wgsl
const IN_FLIGHT = 4u; // parts whose loads are under way at a time; behind the last one the last is loaded again, with weight 0
const LOWEST = -3.4028234e38;

@group(0) @binding(0) var<storage, read> o: array<f32>;
@group(0) @binding(1) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;
@group(0) @binding(3) var<storage, read> past: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  let c = i % params.d;
  let head = i / params.d; // (b·T + t)·H + h
  let t = (head / params.H) % params.T;
  if (head >= params.B * params.T * params.H) {
    return;
  }
  let first = head * ((params.S + KEYS - 1u) / KEYS);
  let end = first + (key_end(t) + KEYS - 1u) / KEYS;
  var largest = LOWEST;
  for (var p0 = first; p0 < end; p0 += IN_FLIGHT) {
    var scores: array<f32, IN_FLIGHT>;
    for (var j = 0u; j < IN_FLIGHT; j++) {
      scores[j] = stats[min(p0 + j, end - 1u)].x;
    }
    for (var j = 0u; j < IN_FLIGHT; j++) {
      largest = max(largest, scores[j]);
    }
  }
  var total = 0.0;
  var sum = 0.0;
  for (var p0 = first; p0 < end; p0 += IN_FLIGHT) {
    var of_parts: array<vec3<f32>, IN_FLIGHT>;
    for (var j = 0u; j < IN_FLIGHT; j++) {
      let p = min(p0 + j, end - 1u);
      of_parts[j] = vec3<f32>(stats[p], o[p * params.d + c]);
    }
    for (var j = 0u; j < IN_FLIGHT; j++) {
      let part = of_parts[j];
      let weight = select(0.0, exp_accurate(part.x - largest), p0 + j < end);
      total += weight * part.y;
      sum += weight * part.z;
    }
  }
  y[i] = select(sum / total, 0.0, total == 0.0);
}
