// Dequantizing loader of whole blocks of 32 numbers, int8, with the layout of weight_int8: a block is two loads. A row must be a
// multiple of 16 bytes, as it is if K is a multiple of 256. Contract: blocks_int4.
@group(0) @binding(1) var<storage, read> weight: array<vec4<u32>>;

const WORD = 1u;
const LOADS_OF_BLOCK = 2u;

fn start_of_row(row: u32, blocks: u32) -> u32 {
  return row * (2u * blocks + (blocks + 1u) / 8u);
}

fn load_block(start: u32, block: u32, i: u32) -> vec4<u32> {
  return weight[start + 2u * block + i];
}

fn block_scale(start: u32, block: u32, blocks: u32) -> vec2<f32> {
  let pair = weight[start + 2u * blocks + block / 8u][block / 2u % 4u];
  return vec2<f32>(bitcast<f32>(select(pair << 16u, pair & 0xffff0000u, block % 2u == 1u)), 0.0);
}

fn unpack(codes: u32) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(vec4<f32>(unpack4xI8(codes)));
}

fn scale_dot(scale: vec2<f32>, dot_codes: f32, sum_x: f32) -> f32 {
  return scale.x * dot_codes;
}
