// One invocation per row, WG rows per workgroup: for software adapters without subgroups, for the reasons in row_subgroup.
const LANES = 1u; // threads of a row

fn row_of(group: u32, lane: u32) -> u32 {
  return group * WG + lane;
}

// A thread's rank among those of its row.
fn rank_of(lane: u32) -> u32 {
  return 0u;
}

fn sum_of_row(lane: u32, value: f32) -> f32 {
  return value;
}

fn sums_of_row(lane: u32, pair: vec2<f32>) -> vec2<f32> {
  return pair;
}

fn max_of_row(lane: u32, value: f32) -> f32 {
  return value;
}
