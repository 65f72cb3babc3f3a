// Weight loader, int8 in blocks of 32 numbers with a scale each: w = scale · code. A row is its codes, four in a u32, then
// its scales, two bf16 in a u32; see tensor/quantize.ts. What each function is for: weight_f32.
@group(0) @binding(1) var<storage, read> weight: array<u32>;

const WORD = 1u;
const BLOCK = 8u;

alias Packed = u32;

fn load_weight(row: u32, group: u32, K4: u32) -> vec4<f32> {
  return load_dequantized(block_scale(row, group / BLOCK, K4), row, group, K4);
}

fn block_scale(row: u32, block: u32, K4: u32) -> vec2<f32> {
  let blocks = (K4 + BLOCK - 1u) / BLOCK;
  let pair = weight[start_of(row, K4) + BLOCK * blocks + block / 2u];
  return vec2<f32>(bitcast<f32>(select(pair << 16u, pair & 0xffff0000u, block % 2u == 1u)), 0.0);
}

fn load_dequantized(scale: vec2<f32>, row: u32, group: u32, K4: u32) -> vec4<f32> {
  return dequantize(scale, vec4<f32>(unpack4xI8(load_packed(row, group, K4))));
}

fn load_packed(row: u32, word: u32, K4: u32) -> Packed {
  return weight[start_of(row, K4) + word];
}

fn unpack(codes: Packed) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(vec4<f32>(unpack4xI8(codes)));
}

fn dequantize(scale: vec2<f32>, codes: vec4<f32>) -> vec4<f32> {
  return scale.x * codes;
}

fn scale_dot(row: u32, block: u32, K4: u32, dot_codes: f32, sum_x: f32) -> f32 {
  return block_scale(row, block, K4).x * dot_codes;
}

fn start_of(row: u32, K4: u32) -> u32 {
  let blocks = (K4 + BLOCK - 1u) / BLOCK;
  return row * (BLOCK * blocks + (blocks + 1u) / 2u);
}
