// y = the rows of x quantized to int8 or int4 in blocks of 32 numbers, with the same bits as quantizeRows of tensor/quantize.ts,
// which describes the layout.
//
// x: u32[rows · K · bytes / 4], rows of a file, f32, f16 or bf16 by the part source, K a multiple of 32
// ->  y: u32[N, words of a row], rows first_row … first_row + rows - 1
// One invocation for two neighbouring blocks of a row: in int8 their scales share a word.
// Dispatch: ceil(rows · ceil(blocks / 2) / WG), folded. Needs: nothing.
//
// The bits must not depend on the adapter, but WGSL allows quotients an error of 2.5 ULP, sums and products either of the two
// nearest results, and subnormal numbers to be flushed to zero. Therefore no bit depends on a rounding:
// - Scales are computed with integers (bf16_of_quotient).
// - A code is floor((w - min) / scale + 1/2), with min = 0 in int8. The scale is S · 2^e, S an integer of 8 bits. In units of
//   2^e / 2 it is 2 S, and the code is floor((Y + S) / 2 S) with Y = floor(w - min), exactly, because 2 S and S are integers.
//   Everything up to Y is exact: a multiplication by a power of two, trunc, differences that f32 represents. Then
//   (Y + S + 1/2) / 2 S is at least 1 / 4 S >= 1/1020 away from any integer, and its f32 error is below 1/8000.
// @use source = source_f32
// @use code = code_int8
override WG: u32 = 64;
const TO_INT = 0x1.8p23; // x + TO_INT has an integer x, |x| < 2^22, in its lowest bits

struct Params {
  rows: u32,
  blocks: u32, // of a row
  first_row: u32,
}

@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

// n / D · 2^exponent rounded to f32, then to bf16, to nearest even: the bits. n >= 2^29, so that the quotient has at least 25
// bits. inexact: a fraction of n was cut off.
fn bf16_of_quotient(n: u32, inexact: bool, D: u32, exponent: i32) -> u32 {
  let q = n / D;
  let is_whole = n == q * D && !inexact;
  let cut = 8u - countLeadingZeros(q);
  let rest = q & ((1u << cut) - 1u);
  let half = 1u << (cut - 1u);
  let kept = q >> cut;
  let is_up = rest > half || (rest == half && (!is_whole || kept % 2u == 1u));
  // 2^23 is f32's hidden bit. A carry out of the significand increments the exponent.
  return to_bf16((u32(150 + exponent + i32(cut)) << 23u) + (kept + u32(is_up)) - (1u << 23u));
}

// The bits of a finite f32 rounded to bf16, to nearest even.
fn to_bf16(bits: u32) -> u32 {
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

// |x| = significand · 2^(max(exponent field, 1) - 150), for the bits of an f32 x.
fn significand_of(bits: u32) -> u32 {
  return (bits & 0x7fffffu) | select(0u, 0x800000u, (bits & 0x7f800000u) != 0u);
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  let pairs = (params.blocks + 1u) / 2u;
  let row = i / pairs;
  if (row >= params.rows) {
    return;
  }
  let block = 2u * (i % pairs);
  let start = (params.first_row + row) * words_of_row(params.blocks);
  let first = row * params.blocks + block;
  let is_pair = block + 1u < params.blocks;
  var scales = vec2<u32>(encode(numbers_of(first), start + block * CODE_WORDS), 0u);
  if (is_pair) {
    scales.y = encode(numbers_of(first + 1u), start + (block + 1u) * CODE_WORDS);
  }
  store_scales(start + params.blocks * CODE_WORDS, block, scales, is_pair);
}
