// Weight loader, bf16 stored as pairs in u32. A bf16 is the upper half of an f32: widening is a shift.
@group(0) @binding(1) var<storage, read> weight: array<vec2<u32>>;

const WORD = 1u;
const BLOCK = 1u;

fn load_weight(row: u32, group: u32, K4: u32) -> vec4<f32> {
  let bits = weight[row * K4 + group];
  return bitcast<vec4<f32>>(vec4<u32>(bits.x << 16u, bits.x & 0xffff0000u, bits.y << 16u, bits.y & 0xffff0000u));
}

fn load_codes(row: u32, word: u32, K4: u32) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(load_weight(row, word, K4));
}

fn weigh(row: u32, block: u32, K4: u32, by_codes: f32, by_ones: f32) -> f32 {
  return by_codes;
}
