// Reductions over the workgroup's threads, whose result all of them get: sum and maximum of a number, sums of two numbers at
// once, and the best candidate. As a tree in shared memory. WG is a power of two, and all threads call it.
// @slot reduce: sum_over_threads(lane: u32, value: f32) -> f32, sums_over_threads(lane: u32, pair: vec2<f32>) -> vec2<f32>
// @slot reduce: max_over_threads(lane: u32, value: f32) -> f32, best_over_threads(lane: u32, candidate: Candidate) -> Candidate
// @slot reduce: Candidate
// @use candidate
var<workgroup> partial: array<f32, WG>;
var<workgroup> partial_pairs: array<vec2<f32>, WG>;
var<workgroup> candidates: array<Candidate, WG>;

fn sum_over_threads(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
    workgroupBarrier();
  }
  let total = partial[0];
  workgroupBarrier(); // before the next use overwrites it
  return total;
}

fn sums_over_threads(lane: u32, pair: vec2<f32>) -> vec2<f32> {
  partial_pairs[lane] = pair;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial_pairs[lane] += partial_pairs[lane + half];
    }
    workgroupBarrier();
  }
  let total = partial_pairs[0];
  workgroupBarrier();
  return total;
}

fn max_over_threads(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] = max(partial[lane], partial[lane + half]);
    }
    workgroupBarrier();
  }
  let largest = partial[0];
  workgroupBarrier();
  return largest;
}

fn best_over_threads(lane: u32, candidate: Candidate) -> Candidate {
  candidates[lane] = candidate;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half && is_before(candidates[lane + half], candidates[lane])) {
      candidates[lane] = candidates[lane + half];
    }
    workgroupBarrier();
  }
  let best = candidates[0];
  workgroupBarrier();
  return best;
}
