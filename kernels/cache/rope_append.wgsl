// What a fused projection gives, where attention over a cache wants it: queries turned to their positions, keys turned and
// stored behind those that the cache holds, values stored as they are. The same as rope on two parts and kv_append on two.
//
// qkv: f32[B, T, (H + 2Hkv)·d], the heads of queries, keys and values  table: f32[P, d], as rope.wgsl's
// positions: u32[B, T], P or more counting as P - 1  past: u32[1]
// ->  q: f32[B, T, H, d]  keys, values: f32[≥ B, Hkv, C, d], of which T places of B rows are written; or of halves, two in a
// u32: u32[≥ B, Hkv, C, d/2]
// One invocation two numbers of a head, half a head apart, or four times two where d is divisible by eight; of halves, where
// it is divisible by four only, two times two.
// Dispatch: ceil(units / WG), folded. Needs: nothing.
// @use kept = kept_vec4
override WG: u32 = 64;

struct Params {
  units: u32, // B·T·(H + 2Hkv)·half
  T: u32,
  H: u32,
  Hkv: u32,
  half: u32, // d/2, in what an invocation takes
  P: u32,
  C: u32,
}

@group(0) @binding(0) var<storage, read> qkv: array<Real>;
@group(0) @binding(1) var<storage, read> table: array<Real>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> past: array<u32>;
@group(0) @binding(4) var<storage, read_write> q: array<Real>;
@group(0) @binding(5) var<storage, read_write> keys: array<Kept>;
@group(0) @binding(6) var<storage, read_write> values: array<Kept>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * WG + lane;
  if (i >= params.units) {
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
  let turned_first = first * cosine - second * sine;
  let turned_second = second * cosine + first * sine;
  if (head < params.H) {
    let dst = (token * params.H + head) * 2u * half + j;
    q[dst] = turned_first;
    q[dst + half] = turned_second;
    return;
  }

  let place = past[0] + token % params.T;
  if (place >= params.C) {
    return;
  }
  let stored = (head - params.H) % params.Hkv;
  let dst = (((token / params.T) * params.Hkv + stored) * params.C + place) * 2u * half + j;
  if (head < params.H + params.Hkv) {
    keys[dst] = keep(turned_first);
    keys[dst + half] = keep(turned_second);
  } else {
    values[dst] = keep(first);
    values[dst + half] = keep(second);
  }
}
