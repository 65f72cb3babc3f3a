// Reductions over the SG lanes of a subgroup, whose result all of them get: the kernel has "enable subgroups;" and the
// override SG, a power of two. Software adapters run subgroupAdd and subgroupMax lane by lane, a shuffle in one instruction.
fn sum_over_lanes(value: f32) -> f32 {
  var sum = value;
  for (var apart = 1u; apart < SG; apart *= 2u) {
    sum += subgroupShuffleXor(sum, apart);
  }
  return sum;
}

fn max_over_lanes(value: f32) -> f32 {
  var largest = value;
  for (var apart = 1u; apart < SG; apart *= 2u) {
    largest = max(largest, subgroupShuffleXor(largest, apart));
  }
  return largest;
}
