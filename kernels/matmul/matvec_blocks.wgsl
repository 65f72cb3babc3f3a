// y = activate(x Wᵀ + bias) for few rows of x and a quantized weight, on GPUs. Dequantizing is bound by instructions as much as
// by bandwidth, so a thread takes whole blocks: one scale for 32 codes.
//
// x: f32[M, K], M at most 8  weight: [N, K] by a loader of blocks  bias: f32[N]  ->  y: f32[M, N]
// A workgroup of WG threads computes 4·WG/LANES sums (4·WG/LANES / FACTORS columns of y) for all M rows; see
// parts/block_walk.wgsl.
// Dispatch: ceil(FACTORS·N / (4·WG/LANES)), folded. Needs: 144·TM·LANES bytes of shared memory, 4·WG more with norm_rms; K a
// multiple of 32; rows of W of a multiple of 16 bytes.
// @use matmul
// @use block_walk

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  multiply_blocks(workgroup_id.x + workgroup_id.y * num_workgroups.x, lane);
}
