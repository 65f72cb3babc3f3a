// Largest of a number over the workgroup's threads; every thread gets it. WG is a power of two, and all threads call it.
// @use sum_over_threads
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
  workgroupBarrier(); // before the next use overwrites it
  return largest;
}
