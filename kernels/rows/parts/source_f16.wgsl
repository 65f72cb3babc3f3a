// Loads a block of f16, converted with integers: unpack2x16float may flush subnormal numbers. Contract: source_f32.
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;

const NOT_FINITE = 0x47800000u; // 2^16: infinities are converted like finite numbers

fn numbers_of(block: u32) -> array<vec4<u32>, 8> {
  var numbers: array<vec4<u32>, 8>;
  for (var i = 0u; i < 4u; i++) {
    let words = x[4u * block + i];
    numbers[2u * i] = widen(words.xy);
    numbers[2u * i + 1u] = widen(words.zw);
  }
  return numbers;
}

// The exponent's bias is 127 instead of 15. A subnormal number is computed as 2^-14 · (1 + fraction) - 2^-14, which is exact.
fn widen(words: vec2<u32>) -> vec4<u32> {
  let halves = vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u);
  let size = (halves & vec4<u32>(0x7fffu)) << vec4<u32>(13u);
  let normal = size + vec4<u32>(112u << 23u);
  let subnormal = bitcast<vec4<u32>>(bitcast<vec4<f32>>(normal + vec4<u32>(1u << 23u)) - vec4<f32>(0x1p-14));
  return select(normal, subnormal, size < vec4<u32>(1u << 23u)) | ((halves & vec4<u32>(0x8000u)) << vec4<u32>(16u));
}
