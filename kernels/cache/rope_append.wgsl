// Splits a fused projection into rotated queries, and keys and values for the cache: keys are rotated and appended, values
// are appended as they are. The same as rope on queries and keys, and kv_append on keys and values.
//
// qkv: f32[B, T, (H + 2Hkv)·d], the heads of queries, keys and values  table: f32[P, d], as rope.wgsl's
// positions: u32[B, T], P or more counting as P - 1  past: u32[1]
// ->  q: f32[B, T, H, d]  keys, values: f32[≥ B, Hkv, C, d], of which T places of B rows are written; or f16, two in a
// u32: u32[≥ B, Hkv, C, d/2]
// One invocation two elements of a head, half a head apart. An element is four numbers where d is a multiple of 8; else one of
// f32, two of f16.
// Dispatch: ceil(size / WG), folded. Needs: nothing.
// @use store = store_f32x4
override WG: u32 = 64;

struct Params {
  size: u32, // B·T·(H + 2Hkv)·half
  T: u32,
  H: u32,
  Hkv: u32,
  half: u32, // d/2, in elements
  P: u32,
  C: u32,
}

@group(0) @binding(0) var<storage, read> qkv: array<Element>;
@group(0) @binding(1) var<storage, read> table: array<Element>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> past: array<u32>;
@group(0) @binding(4) var<storage, read_write> q: array<Element>;
@group(0) @binding(5) var<storage, read_write> keys: array<Stored>;
@group(0) @binding(6) var<storage, read_write> values: array<Stored>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  if (i >= params.size) {
    return;
  }
  let half = params.half;
  let heads = params.H + 2u * params.Hkv;
  let j = i % half;
  let head = (i / half) % heads;
  let token = i / (half * heads); // of all B·T
  let src = (i / half) * 2u * half + j;
  let first = qkv[src];
  let second = qkv[src + half];

  let angle = min(positions[token], params.P - 1u) * 2u * half + j;
  let cosine = table[angle];
  let sine = table[angle + half];
  let rotated_first = first * cosine - second * sine;
  let rotated_second = second * cosine + first * sine;
  if (head < params.H) {
    let dst = (token * params.H + head) * 2u * half + j;
    q[dst] = rotated_first;
    q[dst + half] = rotated_second;
    return;
  }

  let place = past[0] + token % params.T;
  if (place >= params.C) {
    return;
  }
  let stored = (head - params.H) % params.Hkv;
  let dst = (((token / params.T) * params.Hkv + stored) * params.C + place) * 2u * half + j;
  if (head < params.H + params.Hkv) {
    keys[dst] = encode(rotated_first);
    keys[dst + half] = encode(rotated_second);
  } else {
    values[dst] = encode(first);
    values[dst + half] = encode(second);
  }
}
