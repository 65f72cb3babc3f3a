// cache[b, h, past + t] = x[b, t, h]: appends new keys or values to a key/value cache.
//
// x: f32[B, T, Hkv, d], strided, last stride 1  past: u32[1]  ->  cache: f32[B, Hkv, C, d], of which T places are written; or
// f16, two in a u32: u32[B, Hkv, C, d/2]
// One invocation an element: a number or, where d, strides and offset are multiples of 4, four. All sizes count elements. The
// cache's length is read from a buffer, so that the launch is the same at every decoding step. Nothing is written beyond C.
// Dispatch: ceil(B·T·Hkv·d / WG), folded. Needs: nothing.
// @use store = store_f32x4
override WG: u32 = 64;

struct Params {
  size: u32, // B·T·Hkv·d
  T: u32,
  Hkv: u32,
  C: u32,
  d: u32,
  x_offset: u32,
  x_b: u32,
  x_t: u32,
  x_h: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> past: array<u32>;
@group(0) @binding(2) var<storage, read_write> cache: array<Stored>;
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
  let k = i % params.d;
  let head = i / params.d;
  let h = head % params.Hkv;
  let token = head / params.Hkv;
  let t = token % params.T;
  let b = token / params.T;
  let place = past[0] + t;
  if (place >= params.C) {
    return;
  }
  let src = params.x_offset + b * params.x_b + t * params.x_t + h * params.x_h + k;
  cache[((b * params.Hkv + h) * params.C + place) * params.d + k] = encode(x[src]);
}
