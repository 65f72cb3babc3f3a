// y = activate(x Wᵀ + bias) for GPUs: tiles of x and W are staged in shared memory, so that a workgroup loads each number once.
//
// x: f32[M, K]  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]; with split-K f32[SPLITS, M, FACTORS, N]
// A workgroup of WX·WY threads computes TM·WY rows by 4·WX sums (4·WX / FACTORS columns of y); see parts/tile.wgsl.
// Dispatch: ceil(M / (TM·WY)) · SPLITS · ceil(FACTORS·N / (4·WX)), folded, down the rows first, so that neighbours share W in
// the cache. Needs: 64·TM·WY + 320·WX bytes of shared memory, at most 15.5 KiB with WX = 32.
// @use matmul
// @use input = input_vec4
// @use weight = weight_f32
// @use tile

@compute @workgroup_size(WX, WY)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  multiply_tiles(workgroup_id.x + workgroup_id.y * num_workgroups.x, local.xy, lane);
}
