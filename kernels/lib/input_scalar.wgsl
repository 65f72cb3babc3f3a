// Input loader for rows of any length. Behind its end a row's last number is repeated, where padded weights are 0; what lies
// there in memory is the next row, and its NaN times 0 would be NaN.
@group(0) @binding(0) var<storage, read> x: array<f32>;

// Numbers 4·group … 4·group + 3 of a row of x: f32[M, K].
fn load_input(row: u32, group: u32) -> vec4<f32> {
  let start = row * params.K;
  let k = vec4<u32>(0u, 1u, 2u, 3u) + 4u * group;
  let at = start + min(k, vec4<u32>(params.K - 1u));
  return vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]);
}
