// The K largest of x + scores over the n rows of each prompt, largest first, the lowest index first on ties: two launches.
//
// x: f32[R, N], R = P n, as bits; or, to merge, [P, N] from the first launch: bits, and from params.ids on indices
// scores: f32[R]; not used when merging
// y: bits of the sums, then places, row · N + column with rows counted from 0 for each prompt: u32[2, R, chunks, K]. Where
// a chunk has fewer than K numbers, minus infinity at 0xffffffff follows.
//
// One workgroup per chunk of a row; its threads stride over it, and each keeps its largest. K rounds select the largest of
// these, and only the thread that had it searches its next one: cheap if K is small compared to the chunk. Floats are mapped
// to order-preserving integers, as in argmax.wgsl; NaN is larger than any number.
// Dispatch: R · chunks workgroups, folded; to merge, P. Needs: nothing; subgroups of any size with reduce_subgroups.
// @use reduce = reduce_tree
override WG: u32 = 64;

const NOTHING = 0u; // no number has this key
const MINUS_INFINITY = 0xff800000u;
const NO_PLACE = 0xffffffffu;

struct Params {
  rows: u32,
  N: u32,
  K: u32,
  n: u32, // rows of a prompt
  chunk: u32,
  chunks: u32, // of a row
  ids: u32, // where x's places begin; 0 if x is numbers
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> scores: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

// An order-preserving integer of the float with these bits: equal for -0 and 0, largest for NaN; neither 0 nor the initial key
// of the search.
fn key(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return 0xfffffffeu;
  }
  return select(0x80000000u + magnitude, 0x80000000u - magnitude, bits > 0x80000000u);
}

// x + score, as bits. Non-finite numbers are not changed.
fn sum_bits(at: u32, score: f32) -> u32 {
  let bits = x[at];
  let sum = bitcast<u32>(bitcast<f32>(bits) + score);
  return select(sum, bits, params.ids != 0u || (bits & 0x7f800000u) == 0x7f800000u);
}

// The first in order of the elements first, first + WG, … below end that come after last; places are those in x.
fn next(first: u32, end: u32, score: f32, last: Candidate) -> Candidate {
  var found = Candidate(NOTHING, NO_PLACE);
  for (var at = first; at < end; at += WG) {
    let candidate = Candidate(key(sum_bits(at, score)), at);
    if (candidate.key > found.key && is_before(last, candidate)) {
      if (params.ids == 0u || x[params.ids + at] != NO_PLACE) {
        found = candidate;
      }
    }
  }
  return found;
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let index = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  if (index >= params.rows * params.chunks) {
    return;
  }
  let row = index / params.chunks;
  let start = row * params.N + (index % params.chunks) * params.chunk;
  let end = min(start + params.chunk, (row + 1u) * params.N);
  let score = select(scores[row], 0.0, params.ids != 0u);

  var mine = next(start + lane, end, score, Candidate(0xffffffffu, 0u));
  for (var k = 0u; k < params.K; k++) {
    let winner = best_over_threads(lane, mine);
    if (mine.place == winner.place && winner.key != NOTHING) {
      mine = next(start + lane, end, score, winner);
    }
    if (lane == 0u) {
      var bits = MINUS_INFINITY;
      var place = NO_PLACE;
      if (winner.key != NOTHING) {
        bits = sum_bits(winner.place, score);
        if (params.ids == 0u) {
          place = winner.place - (row - row % params.n) * params.N;
        } else {
          place = x[params.ids + winner.place];
        }
      }
      y[index * params.K + k] = bits;
      y[(params.rows * params.chunks + index) * params.K + k] = place;
    }
  }
}
