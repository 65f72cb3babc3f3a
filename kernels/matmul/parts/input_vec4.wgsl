// Input loader for rows whose length K is a multiple of 4: one vec4 a load.
// @slot input: x, input_of(row: u32) -> u32, load_input(input: u32, group: u32) -> vec4<f32>
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

// The first argument of load_input for a row: the row; beyond the last row, the last.
fn input_of(row: u32) -> u32 {
  return min(row, params.M - 1u);
}

// Numbers 4·group … 4·group + 3 of a row of x: f32[M, K]; zeros beyond its end.
fn load_input(row: u32, group: u32) -> vec4<f32> {
  let K4 = params.K / 4u;
  return select(vec4<f32>(), x[row * K4 + min(group, K4 - 1u)], group < K4);
}
