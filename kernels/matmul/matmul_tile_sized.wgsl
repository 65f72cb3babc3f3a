// y = activate(x Wᵀ + bias) as matmul_tile, in subgroups of SG threads. Of a GPU's subgroup sizes, 32 and 64, Dawn takes 64 by
// default; RDNA dual-issues multiply-adds only with 32.
//
// x: f32[M, K]  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]; with split-K f32[SPLITS, M, FACTORS, N]
// Dispatch: as matmul_tile. Needs: as matmul_tile; subgroups of SG threads, and WX a multiple of SG.
enable subgroups;
enable subgroup_size_control;
// @use matmul
// @use input = input_vec4
// @use weight = weight_f32
// @use tile
override SG: u32 = 32;

@compute @subgroup_size(SG) @workgroup_size(WX, WY)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  multiply_tiles(workgroup_id.x + workgroup_id.y * num_workgroups.x, local.xy, lane);
}
