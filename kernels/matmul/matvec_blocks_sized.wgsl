// y = activate(x Wᵀ + bias) as matvec_blocks, in subgroups of SG threads, for the reason in matmul_tile_sized.
//
// x: f32[M, K], M at most 8  weight: [N, K] by a loader of blocks  bias: f32[N]  ->  y: f32[M, N]
// A workgroup of WG threads computes 4·WG/LANES sums (4·WG/LANES / FACTORS columns of y) for all M rows; see
// parts/block_walk.wgsl.
// Dispatch: ceil(FACTORS·N / (4·WG/LANES)), folded. Needs: 144·TM·LANES bytes of shared memory, 4·WG more with norm_rms; K a
// multiple of 32; rows of W of a multiple of 16 bytes; subgroups of SG threads, and WG a multiple of SG.
enable subgroups;
enable subgroup_size_control;
// @use matmul
// @use block_walk
override SG: u32 = 32;

@compute @subgroup_size(SG) @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  multiply_blocks(workgroup_id.x + workgroup_id.y * num_workgroups.x, lane);
}
