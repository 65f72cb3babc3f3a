// Repetition penalty and bans: y = y penalty where y < 0, y / penalty elsewhere, at the first params.penalised of places; -∞
// at the others.
//
// places: u32[n], all different, into y laid flat  ->  y: f32[R, V], as bits, changed in place
// One invocation a place. Infinities and NaN are not penalised: multiplying would not change them.
// Dispatch: ceil(n / WG), folded. Needs: nothing.
// Source: transformers 5.18, RepetitionPenaltyLogitsProcessor in generation/logits_process.py.
override WG: u32 = 64;

struct Params {
  n: u32,
  penalised: u32,
  size: u32,
  penalty: f32,
}

@group(0) @binding(0) var<storage, read> places: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  if (i >= params.n || places[i] >= params.size) {
    return;
  }
  let place = places[i];
  let bits = y[place];
  if (i >= params.penalised) {
    y[place] = 0xff800000u;
  } else if ((bits & 0x7f800000u) != 0x7f800000u) {
    let score = bitcast<f32>(bits);
    y[place] = bitcast<u32>(select(score / params.penalty, score * params.penalty, score < 0.0));
  }
}
