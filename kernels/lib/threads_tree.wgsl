// Sum and largest of a number over the workgroup's threads, and the best of their candidates, which all of them get: by
// halves, in shared memory. WG is a power of two, and all threads call it.
// @use candidate
var<workgroup> partial: array<f32, WG>;
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
