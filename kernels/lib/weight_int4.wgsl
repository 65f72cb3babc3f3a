// Weight loader, int4 in blocks of 32 numbers with a scale and a minimum each: w = scale · code + min. A row is its codes, then
// a u32 for each block: scale and min as bf16. Eight codes share a u32, the first four in the low 4 bits of its bytes, so that
// each four are multiplied by neighbouring numbers of x; see tensor/quantize.ts. What each function is for: weight_f32.
@group(0) @binding(1) var<storage, read> weight: array<u32>;

const WORD = 2u;
const BLOCK = 4u;

alias Packed = u32;

fn load_weight(row: u32, group: u32, K4: u32) -> vec4<f32> {
  return load_dequantized(block_scale(row, group / (WORD * BLOCK), K4), row, group, K4);
}

fn block_scale(row: u32, block: u32, K4: u32) -> vec2<f32> {
  let bits = weight[start_of(row, K4) + (K4 + 7u) / 8u * BLOCK + block];
  return bitcast<vec2<f32>>(vec2<u32>(bits << 16u, bits & 0xffff0000u));
}

fn load_dequantized(scale: vec2<f32>, row: u32, group: u32, K4: u32) -> vec4<f32> {
  let codes = weight[start_of(row, K4) + group / 2u] >> (4u * (group % 2u));
  return dequantize(scale, vec4<f32>(unpack4xU8(codes & 0x0f0f0f0fu)));
}

fn dequantize(scale: vec2<f32>, codes: vec4<f32>) -> vec4<f32> {
  return scale.x * codes + scale.y;
}

fn load_packed(row: u32, word: u32, K4: u32) -> Packed {
  return weight[start_of(row, K4) + word];
}

fn unpack(codes: Packed) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(
    vec4<f32>(unpack4xU8(codes & 0x0f0f0f0fu)),
    vec4<f32>(unpack4xU8((codes >> 4u) & 0x0f0f0f0fu)),
  );
}

fn scale_dot(row: u32, block: u32, K4: u32, dot_codes: f32, sum_x: f32) -> f32 {
  let scale = block_scale(row, block, K4);
  return scale.x * dot_codes + scale.y * sum_x;
}

fn start_of(row: u32, K4: u32) -> u32 {
  return row * ((K4 + 7u) / 8u) * (BLOCK + 1u);
}
