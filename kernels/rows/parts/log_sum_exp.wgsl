// ln Σ e^(x - max(x)) of a row of x: array<u32>, the bits of f32, over the workgroup's threads; with parts math and reduce.
// Each thread sums runs of 32 numbers, then the runs: the sum's relative error is the logarithm's error, and one long f32 sum
// would lose digits. Minus infinity adds nothing. All comparisons are of bits, and so equal on every driver.
const RUN = 32u;
const MINUS_INFINITY = 0xff800000u;
const NAN = 0x7fc00000u;

struct RowSum {
  finite: bool, // else the row has a NaN or plus infinity, or only minus infinity, and the other fields are invalid
  largest: f32,
  log_sum: f32,
}

// An order-preserving integer of the float with these bits; largest for NaN.
fn key(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return 0xffffffffu;
  }
  return select(0x80000000u + magnitude, 0x80000000u - magnitude, bits > 0x80000000u);
}

// The float whose key this is.
fn float_of(key: u32) -> f32 {
  return bitcast<f32>(select((0x80000000u - key) | 0x80000000u, key - 0x80000000u, key >= 0x80000000u));
}

// Of x[start … start + V - 1]. All threads call it.
fn log_sum_exp(start: u32, V: u32, lane: u32) -> RowSum {
  var largest = 0u;
  for (var i = lane; i < V; i += WG) {
    largest = max(largest, key(x[start + i]));
  }
  let top = best_over_threads(lane, Candidate(largest, lane)).key;
  let finite = top > key(MINUS_INFINITY) && top < key(0x7f800000u);
  let shift = select(0.0, float_of(top), finite);

  var sum = 0.0;
  for (var first = lane; first < V; first += RUN * WG) {
    var run = 0.0;
    for (var i = first; i < min(first + RUN * WG, V); i += WG) {
      let bits = x[start + i];
      if (finite && bits != MINUS_INFINITY) {
        run += exp_accurate(bitcast<f32>(bits) - shift);
      }
    }
    sum += run;
  }
  return RowSum(finite, shift, log_accurate(sum_over_threads(lane, sum)));
}
