// The K largest of x + scores over the n rows of each prompt, largest first, the lowest place first on ties.
//
// x: f32[P, N], N = n V, as bits; or, to merge, what an earlier launch gave: bits and, from params.ids on, places [P, N]
// scores: f32[P, n]; not read when merging
// y: bits of the sums, then places: u32[2, P, chunks, K], a place being row · V + column. Where there are fewer than K
// numbers, -∞ at 0xffffffff follows.
//
// One workgroup a chunk of N; its threads stride over it and each keeps its largest. K rounds take the largest of these,
// and only the thread that had it looks for its next one: cheap while K is small against the chunk. The launcher merges
// the chunks' winners in a second launch.
// Floats are mapped to integers of the same order, as in argmax.wgsl; NaN counts as minus infinity, but stays NaN in y.
// Dispatch: P · chunks workgroups, folded. Needs: nothing.
override WG: u32 = 64;

const NOTHING = 0u; // no number has this key
const MINUS_INFINITY = 0xff800000u;

struct Params {
  P: u32,
  N: u32,
  V: u32,
  K: u32,
  chunk: u32,
  chunks: u32,
  ids: u32, // where x's places begin; 0 if x is numbers
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> scores: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(1) @binding(0) var<uniform> params: Params;

struct Candidate {
  key: u32,
  at: u32, // 0 … N - 1
}

var<workgroup> best: array<Candidate, WG>;

// Grows with the float that has these bits, is the same for -0 and 0, and for NaN and -∞; never 0.
fn key(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return 0x00800000u;
  }
  return select(0x80000000u + magnitude, 0x80000000u - magnitude, bits > 0x80000000u);
}

// x + score of element at of a prompt, as bits. What is not finite stays what it is.
fn sum_bits(prompt: u32, at: u32) -> u32 {
  let bits = x[prompt * params.N + at];
  if (params.ids != 0u || (bits & 0x7f800000u) == 0x7f800000u) {
    return bits;
  }
  return bitcast<u32>(bitcast<f32>(bits) + scores[(prompt * params.N + at) / params.V]);
}

fn is_before(a: Candidate, b: Candidate) -> bool {
  return a.key > b.key || (a.key == b.key && a.at < b.at);
}

// The first in order of the elements first, first + WG, … below end that come after last.
fn next(prompt: u32, first: u32, end: u32, last: Candidate) -> Candidate {
  var found = Candidate(NOTHING, 0xffffffffu);
  for (var at = first; at < end; at += WG) {
    let candidate = Candidate(key(sum_bits(prompt, at)), at);
    if (candidate.key > found.key && is_before(last, candidate)) {
      found = candidate;
    }
  }
  return found;
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let index = group.x + group.y * groups.x;
  if (index >= params.P * params.chunks) {
    return;
  }
  let prompt = index / params.chunks;
  let start = (index % params.chunks) * params.chunk;
  let end = min(start + params.chunk, params.N);

  var mine = next(prompt, start + lane, end, Candidate(0xffffffffu, 0u));
  for (var k = 0u; k < params.K; k++) {
    best[lane] = mine;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
      if (lane < half && is_before(best[lane + half], best[lane])) {
        best[lane] = best[lane + half];
      }
      workgroupBarrier();
    }
    let winner = best[0];
    workgroupBarrier(); // before the next round overwrites it

    if (mine.at == winner.at && winner.key != NOTHING) {
      mine = next(prompt, start + lane, end, winner);
    }
    if (lane == 0u) {
      var bits = MINUS_INFINITY;
      var place = 0xffffffffu;
      if (winner.key != NOTHING) {
        bits = sum_bits(prompt, winner.at);
        place = winner.at;
        if (params.ids != 0u) {
          place = x[params.ids + prompt * params.N + winner.at];
        }
      }
      y[index * params.K + k] = bits;
      y[(params.P * params.chunks + index) * params.K + k] = place;
    }
  }
}
