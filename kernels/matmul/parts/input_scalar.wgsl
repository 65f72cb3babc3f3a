// Input loader for rows of any length K.
@group(0) @binding(0) var<storage, read> x: array<f32>;

// The first argument of load_input for a row: the row; beyond the last row, the last.
fn input_of(row: u32) -> u32 {
  return min(row, params.M - 1u);
}

// Numbers 4·group … 4·group + 3 of a row of x: f32[M, K]; zeros beyond its end. Memory holds the next row there, and the padding
// of a quantized weight is not always 0.
fn load_input(row: u32, group: u32) -> vec4<f32> {
  let k = vec4<u32>(0u, 1u, 2u, 3u) + 4u * group;
  let at = row * params.K + min(k, vec4<u32>(params.K - 1u));
  return select(vec4<f32>(), vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]), k < vec4<u32>(params.K));
}
