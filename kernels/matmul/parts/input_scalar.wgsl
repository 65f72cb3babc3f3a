// Input loader for rows of any length.
@group(0) @binding(0) var<storage, read> x: array<f32>;

// What load_input takes for a row of y: the row of x; behind the last row it is the last's.
fn input_of(row: u32) -> u32 {
  return min(row, params.M - 1u);
}

// Numbers 4·group … 4·group + 3 of a row of x: f32[M, K]; zeros behind its end, where memory holds the next row, and what a
// quantized weight is padded with is not always 0.
fn load_input(row: u32, group: u32) -> vec4<f32> {
  let k = vec4<u32>(0u, 1u, 2u, 3u) + 4u * group;
  let at = row * params.K + min(k, vec4<u32>(params.K - 1u));
  return select(vec4<f32>(), vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]), k < vec4<u32>(params.K));
}
