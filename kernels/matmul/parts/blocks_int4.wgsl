// Dequantizing loader of whole blocks of 32 numbers: LOADS_OF_BLOCK loads of four u32, each u32 WORD groups of four codes; and the
// block's scale and min, w = scale.x · code + scale.y. int4, with the layout of weight_int4: a block is one load. A row must be
// a multiple of 16 bytes, as it is if K is a multiple of 128.
// @slot blocks: weight, WORD, LOADS_OF_BLOCK, start_of_row(row: u32, blocks: u32) -> u32
// @slot blocks: load_block(start: u32, block: u32, i: u32) -> vec4<u32>, unpack(codes: u32) -> array<vec4<f32>, WORD>
// @slot blocks: block_scale(start: u32, block: u32, blocks: u32) -> vec2<f32>
// @slot blocks: scale_dot(scale: vec2<f32>, dot_codes: f32, sum_x: f32) -> f32
@group(0) @binding(1) var<storage, read> weight: array<vec4<u32>>;

const WORD = 2u;
const LOADS_OF_BLOCK = 1u;

fn start_of_row(row: u32, blocks: u32) -> u32 {
  return row * (blocks * 5u / 4u);
}

fn load_block(start: u32, block: u32, i: u32) -> vec4<u32> {
  return weight[start + block];
}

fn block_scale(start: u32, block: u32, blocks: u32) -> vec2<f32> {
  let bits = weight[start + blocks + block / 4u][block % 4u];
  return bitcast<vec2<f32>>(vec2<u32>(bits << 16u, bits & 0xffff0000u));
}

fn unpack(codes: u32) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(
    vec4<f32>(unpack4xU8(codes & 0x0f0f0f0fu)),
    vec4<f32>(unpack4xU8((codes >> 4u) & 0x0f0f0f0fu)),
  );
}

fn scale_dot(scale: vec2<f32>, dot_codes: f32, sum_x: f32) -> f32 {
  return scale.x * dot_codes + scale.y * sum_x;
}
