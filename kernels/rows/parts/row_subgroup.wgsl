// One subgroup per row, which is the whole workgroup: for software adapters, where barriers are slow (row_workgroup takes 4
// times as long there) and take seconds to compile. Needs: subgroups of exactly WG threads.
// @use subgroup_reduce
enable subgroups;
override SG: u32 = WG;
override LANES: u32 = WG; // threads of a row

fn row_of(group: u32, lane: u32) -> u32 {
  return group;
}

// A thread's rank among those of its row.
fn rank_of(lane: u32) -> u32 {
  return lane;
}

fn sum_of_row(lane: u32, value: f32) -> f32 {
  return sum_over_lanes(value);
}

fn sums_of_row(lane: u32, pair: vec2<f32>) -> vec2<f32> {
  return vec2<f32>(sum_over_lanes(pair.x), sum_over_lanes(pair.y));
}

fn max_of_row(lane: u32, value: f32) -> f32 {
  return max_over_lanes(value);
}
