// Rotary position embedding (RoPE): rotates the pair (x[j], x[j + d/2]) by the table's angle for its position and j.
//
// x: f32[B, T, H, d], strided, last stride 1  table: f32[P, d], cosines then sines of d/2 angles
// positions: u32[B, T], a position of P or more counting as P - 1  ->  y: f32[B, T, H, d]
// One invocation a pair. The pairs are HF's "rotate_half": first half and second half, not even and odd.
// Dispatch: ceil(B·T·H·d/2 / WG), folded. Needs: nothing.
// Source: Su et al. 2021, RoFormer; transformers' apply_rotary_pos_emb.
override WG: u32 = 64;

struct Params {
  size: u32, // B·T·H·d/2
  T: u32,
  H: u32,
  half: u32, // d/2
  P: u32,
  x_offset: u32,
  x_b: u32,
  x_t: u32,
  x_h: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
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
  let j = i % params.half;
  let head = i / params.half; // of all B·T·H
  let h = head % params.H;
  let token = head / params.H; // of all B·T
  let t = token % params.T;
  let b = token / params.T;

  let angle = min(positions[token], params.P - 1u) * 2u * params.half + j;
  let cosine = table[angle];
  let sine = table[angle + params.half];
  let src = params.x_offset + b * params.x_b + t * params.x_t + h * params.x_h + j;
  let first = x[src];
  let second = x[src + params.half];
  let dst = head * 2u * params.half + j;
  y[dst] = first * cosine - second * sine;
  y[dst + params.half] = second * cosine + first * sine;
}
