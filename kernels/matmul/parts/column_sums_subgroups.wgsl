// Reduces each thread's four sums of every row of y over the workgroup, and stores them: first within each subgroup, then, after
// one barrier, the subgroup of thread 0 reduces the partial sums in shared memory. With part matmul; all threads call it.
// Correct for subgroups of any size and layout, as reduce_subgroups.wgsl.
enable subgroups;

var<workgroup> partial_sums: array<vec4<f32>, WG * TM>;

fn store_columns(column0: u32, lane: u32, sums: ptr<function, array<vec4<f32>, 8>>) {
  let rank = subgroupExclusiveAdd(1u);
  let size = subgroupAdd(1u); // below subgroup_size in a partial subgroup
  let stores = subgroupAny(lane == 0u);
  let is_ours = rank == subgroupBroadcastFirst(lane / size) % size; // as in reduce_subgroups.wgsl
  for (var m = 0u; m < TM; m++) {
    let sum = subgroupAdd((*sums)[m]);
    partial_sums[m * WG + lane] = select(vec4<f32>(), sum, is_ours);
  }
  workgroupBarrier();
  for (var m = 0u; m < TM; m++) {
    var rest = vec4<f32>();
    if (stores) {
      for (var i = rank; i < WG; i += size) {
        rest += partial_sums[m * WG + i];
      }
    }
    let sum = subgroupAdd(rest); // outside of the branch: it needs uniform control flow
    if (stores) {
      for (var n = rank; n < 4u / FACTORS; n += size) {
        let first = sum[n * FACTORS] + bias_of(column0 + n, 0u);
        let last = sum[n * FACTORS + FACTORS - 1u] + bias_of(column0 + n, FACTORS - 1u);
        store(m, column0 + n, first, last);
      }
    }
  }
}
