// y = the index of the row's largest element, the lowest index on ties, and whether that element is finite.
//
// x: f32[R, V], compared as bits  ->  y: u32[2, R], indices, then 1 where the largest is NaN or an infinity, else 0
// One workgroup per row; its threads stride over V, with LOADS loads in flight. Floats are mapped to order-preserving
// integers, so that minus infinity, subnormals and NaN are distinguished on every driver. NaN is larger than any number.
// Dispatch: R workgroups, folded. Needs: nothing; subgroups of any size with reduce_subgroups.
// @use reduce = reduce_tree
override WG: u32 = 64;
override LOADS: u32 = 1; // at most 8: their latencies overlap on GPUs

const OF_MINUS_INFINITY = 0x00800000u;
const OF_INFINITY = 0xff800000u;

struct Params {
  rows: u32,
  V: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

// An order-preserving integer of the float with these bits: equal for -0 and 0, largest for NaN, never 0.
fn key(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return 0xffffffffu;
  }
  return select(0x80000000u + magnitude, 0x80000000u - magnitude, bits > 0x80000000u);
}

// Clamps to the last element, which cannot win against itself; a single load is in bounds, by the loop.
fn inside(at: u32) -> u32 {
  return select(min(at, params.V - 1u), at, LOADS == 1u);
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  if (row >= params.rows) {
    return;
  }
  var best = Candidate(0u, lane); // a thread without a candidate loses to thread 0
  let start = row * params.V;
  for (var i = lane; i < params.V; i += LOADS * WG) {
    var bits: array<u32, 8>;
    for (var j = 0u; j < LOADS; j++) {
      bits[j] = x[start + inside(i + j * WG)];
    }
    for (var j = 0u; j < LOADS; j++) {
      let candidate = key(bits[j]);
      if (candidate > best.key) {
        best = Candidate(candidate, inside(i + j * WG));
      }
    }
  }
  best = best_over_threads(lane, best);
  if (lane == 0u) {
    y[row] = best.place;
    y[params.rows + row] = u32(best.key <= OF_MINUS_INFINITY || best.key >= OF_INFINITY);
  }
}
