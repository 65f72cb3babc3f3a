// Shared by the loaders of unquantized weights (f32, f16, bf16): a code is the number itself, a block is one word, its scale 1.
const WORD = 1u;
const BLOCK = 1u;

fn block_scale(row: u32, block: u32, K4: u32) -> vec2<f32> {
  return vec2<f32>(1.0, 0.0);
}

fn load_dequantized(scale: vec2<f32>, row: u32, group: u32, K4: u32) -> vec4<f32> {
  return load_weight(row, group, K4);
}

fn dequantize(scale: vec2<f32>, codes: vec4<f32>) -> vec4<f32> {
  return codes;
}

fn scale_dot(row: u32, block: u32, K4: u32, dot_codes: f32, sum_x: f32) -> f32 {
  return dot_codes;
}
