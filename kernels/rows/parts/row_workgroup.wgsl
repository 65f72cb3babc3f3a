// One workgroup per row: reductions over its threads, which all of them call, and whose result all of them get.
// @slot row: LANES, row_of(group: u32, lane: u32) -> u32, rank_of(lane: u32) -> u32
// @slot row: sum_of_row(lane: u32, value: f32) -> f32, sums_of_row(lane: u32, pair: vec2<f32>) -> vec2<f32>
// @slot row: max_of_row(lane: u32, value: f32) -> f32
// @use reduce = reduce_tree
override LANES: u32 = WG; // threads of a row

fn row_of(group: u32, lane: u32) -> u32 {
  return group;
}

// A thread's rank among those of its row. Not lane % LANES, which is a division on software adapters.
fn rank_of(lane: u32) -> u32 {
  return lane;
}

fn sum_of_row(lane: u32, value: f32) -> f32 {
  return sum_over_threads(lane, value);
}

fn sums_of_row(lane: u32, pair: vec2<f32>) -> vec2<f32> {
  return sums_over_threads(lane, pair);
}

fn max_of_row(lane: u32, value: f32) -> f32 {
  return max_over_threads(lane, value);
}
