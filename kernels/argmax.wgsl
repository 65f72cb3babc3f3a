// y = the index of the row's largest element, the lowest index if several are largest.
//
// x: f32[R, V], compared as bits  ->  y: u32[R]
// One workgroup a row; its threads stride over V. Floats are mapped to integers of the same order, so that minus
// infinity, subnormals and NaN are told apart on every driver. NaN never wins; a row of nothing else gives 0.
// Dispatch: R workgroups, folded. Needs: nothing; subgroups of any size with threads_subgroups.
// @use threads = threads_tree
override WG: u32 = 64;

struct Params {
  rows: u32,
  V: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

// Grows with the float that has these bits, is the same for -0 and 0, and 0 for NaN alone.
fn key(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return 0u;
  }
  return select(0x80000000u + magnitude, 0x80000000u - magnitude, bits > 0x80000000u);
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
  var best = Candidate(0u, lane); // a thread that finds nothing loses to thread 0
  for (var i = lane; i < params.V; i += WG) {
    let candidate = key(x[row * params.V + i]);
    if (candidate > best.key) {
      best = Candidate(candidate, i);
    }
  }
  best = best_over_threads(lane, best);
  if (lane == 0u) {
    y[row] = best.place;
  }
}
