// int8: code = floor(w / scale + 1/2), scale = max |w| / 127 rounded to bf16.
// @slot code: CODE_WORDS, words_of_row(blocks: u32) -> u32, encode(numbers: array<vec4<u32>, 8>, at: u32) -> u32
// @slot code: store_scales(at: u32, block: u32, scales: vec2<u32>, is_pair: bool)
const CODE_WORDS = 8u; // of a block

fn words_of_row(blocks: u32) -> u32 {
  return CODE_WORDS * blocks + (blocks + 1u) / 2u;
}

// Stores the codes of a block at y[at] and returns its scale.
fn encode(numbers: array<vec4<u32>, 8>, at: u32) -> u32 {
  var largest = vec4<u32>(0u);
  for (var i = 0u; i < 8u; i++) {
    largest = max(largest, numbers[i] & vec4<u32>(0x7fffffffu));
  }
  let most = max(max(largest.x, largest.y), max(largest.z, largest.w));
  let field = most >> 23u;
  var scale = select(0u, 0x7fc0u, most >= NOT_FINITE); // NaN, so that a damaged weight is noticed
  var kept = 0u;
  var unit = 0.0;
  var S = 1.0;
  if (field >= 27u && most < NOT_FINITE) { // TINY of tensor/quantize.ts
    scale = bf16_of_quotient(significand_of(most) << 8u, false, 127u, i32(field) - 158);
    kept = 0xffffffffu;
    unit = bitcast<f32>((262u - (scale >> 7u)) << 23u);
    S = f32((scale & 0x7fu) | 0x80u);
  }
  let inverse = 0.5 / S;
  for (var i = 0u; i < 8u; i++) {
    let size = floor(bitcast<vec4<f32>>(numbers[i] & vec4<u32>(kept)) * unit);
    y[at + i] = pack4xI8(bitcast<vec4<i32>>(floor((size + (S + 0.5)) * inverse) + TO_INT));
  }
  return scale;
}

// Two scales per word, the first in the low half.
fn store_scales(at: u32, block: u32, scales: vec2<u32>, is_pair: bool) {
  y[at + block / 2u] = scales.x | (scales.y << 16u);
}
