// Loads a block of bf16, the upper half of an f32. Contract: source_f32.
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;

const NOT_FINITE = 0x7f800000u;

fn numbers_of(block: u32) -> array<vec4<u32>, 8> {
  var numbers: array<vec4<u32>, 8>;
  for (var i = 0u; i < 4u; i++) {
    let words = x[4u * block + i];
    numbers[2u * i] = widen(words.xy);
    numbers[2u * i + 1u] = widen(words.zw);
  }
  return numbers;
}

fn widen(words: vec2<u32>) -> vec4<u32> {
  return vec4<u32>(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u);
}
