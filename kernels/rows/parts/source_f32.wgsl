// Loads a block of 32 numbers of a file as bits of f32. |x| >= NOT_FINITE, as bits, is an infinity or NaN.
// @slot source: x, NOT_FINITE, numbers_of(block: u32) -> array<vec4<u32>, 8>
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;

const NOT_FINITE = 0x7f800000u;

fn numbers_of(block: u32) -> array<vec4<u32>, 8> {
  var numbers: array<vec4<u32>, 8>;
  for (var i = 0u; i < 8u; i++) {
    numbers[i] = x[8u * block + i];
  }
  return numbers;
}
