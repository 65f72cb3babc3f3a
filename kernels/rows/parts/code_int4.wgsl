// int4: code = floor((w - min) / scale + 1/2), min = the smallest number rounded to bf16, scale = (max - min) / 15 rounded to
// bf16. Numbers more than 28 powers of two below the largest |w| count as zero (FAR of tensor/quantize.ts), which keeps all
// differences exact. Contract: code_int8.
const CODE_WORDS = 4u;

// How a block's numbers are encoded. unit scales them to units of half the last bit of the scale. min is split into an integer,
// whose differences f32 represents, and a fraction in units of 2^-30, whose differences i32 represents.
struct Coder {
  far: u32,
  unit: f32,
  min_whole: f32,
  min_fraction: i32,
  half: f32,
  inverse: f32,
}

fn words_of_row(blocks: u32) -> u32 {
  return (CODE_WORDS + 1u) * blocks;
}

// Maps the bits of f32 to integers that are ordered as the numbers are, and back.
fn ordered(bits: vec4<u32>) -> vec4<i32> {
  let signed = bitcast<vec4<i32>>(bits);
  return signed ^ ((signed >> vec4<u32>(31u)) & vec4<i32>(0x7fffffff));
}

fn without_far(numbers: vec4<u32>, far: u32) -> vec4<u32> {
  return select(numbers, vec4<u32>(0u), (numbers & vec4<u32>(0x7fffffffu)) < vec4<u32>(far));
}

// Stores the codes of a block at y[at] and returns its scale and min.
fn encode(numbers: array<vec4<u32>, 8>, at: u32) -> u32 {
  var smallest = vec4<i32>(0x7fffffff);
  var largest = vec4<i32>(-0x7fffffff);
  for (var i = 0u; i < 8u; i++) {
    let keys = ordered(numbers[i]);
    smallest = min(smallest, keys);
    largest = max(largest, keys);
  }
  let first = min(min(smallest.x, smallest.y), min(smallest.z, smallest.w));
  let last = max(max(largest.x, largest.y), max(largest.z, largest.w));
  let ends = bitcast<vec4<u32>>(ordered(bitcast<vec4<u32>>(vec4<i32>(first, last, 0, 0))));
  let size = max(ends.x & 0x7fffffffu, ends.y & 0x7fffffffu);
  let far = (max(size >> 23u, 29u) - 28u) << 23u;
  let bounds = without_far(ends, far);

  var scales = 0x7fc00000u; // NaN, so that a damaged weight is noticed
  var coder = Coder(0xffffffffu, 0.0, 0.0, 0, 1.5, 0.5);
  let min_bits = to_bf16(bounds.x);
  if (size < NOT_FINITE && (min_bits & 0x7f80u) != 0x7f80u) {
    let scale = scale_of(min_bits << 16u, bounds.y);
    scales = scale | (min_bits << 16u);
    if (scale != 0u) {
      let unit = bitcast<f32>((262u - (scale >> 7u)) << 23u);
      let S = f32((scale & 0x7fu) | 0x80u);
      let from_zero = bitcast<f32>(min_bits << 16u) * unit;
      let whole = trunc(from_zero);
      coder = Coder(far, unit, whole, i32((from_zero - whole) * 0x1p30), S + 0.5, 0.5 / S);
    }
  }
  for (var i = 0u; i < 4u; i++) {
    y[at + i] = pack4xU8(codes_of(numbers[2u * i], coder)) | (pack4xU8(codes_of(numbers[2u * i + 1u], coder)) << 4u);
  }
  return scales;
}

fn codes_of(numbers: vec4<u32>, coder: Coder) -> vec4<u32> {
  let size = bitcast<vec4<f32>>(without_far(numbers, coder.far)) * coder.unit;
  var from_min = floor(size) - coder.min_whole;
  if (coder.min_fraction != 0) { // then |min| < scale / 2: negative numbers have code 0, truncated or not
    let whole = trunc(size);
    let fraction = vec4<i32>((size - whole) * 0x1p30) - vec4<i32>(coder.min_fraction);
    from_min = (whole - coder.min_whole) + vec4<f32>(fraction >> vec4<u32>(30u));
  }
  let code = floor((from_min + coder.half) * coder.inverse);
  return bitcast<vec4<u32>>(clamp(code, vec4<f32>(0.0), vec4<f32>(15.0)) + TO_INT);
}

// The scale of numbers in [low, high]; 0 if the range is empty or tiny.
fn scale_of(low: u32, high: u32) -> u32 {
  let keys = ordered(vec4<u32>(low, high, 0u, 0u));
  if (keys.x >= keys.y) {
    return 0u;
  }
  // high - low in units of 2^-30 times the larger one's power of two; at most a fraction of the smaller one is cut off.
  let larger = max(low & 0x7fffffffu, high & 0x7fffffffu);
  let smaller = min(low & 0x7fffffffu, high & 0x7fffffffu);
  let down = min((larger >> 23u) - (smaller >> 23u), 31u);
  let bits = significand_of(smaller) << 7u;
  let addend = bits >> down;
  let inexact = (addend << down) != bits;
  let is_sum = ((low ^ high) >> 31u) == 1u;
  let whole = significand_of(larger) << 7u;
  let range = select(whole - addend - u32(inexact), whole + addend, is_sum);
  let zeros = select(countLeadingZeros(range), 0u, inexact); // an inexact range is at least 2^29
  let exponent = i32(larger >> 23u) - 157 - i32(zeros);
  let n = range << zeros;
  if (i32(31u - countLeadingZeros(n)) + exponent < -100) { // TINY
    return 0u;
  }
  return bf16_of_quotient(n, inexact, 15u, exponent);
}

// One word per block: scale and min.
fn store_scales(at: u32, block: u32, scales: vec2<u32>, is_pair: bool) {
  y[at + block] = scales.x;
  if (is_pair) {
    y[at + block + 1u] = scales.y;
  }
}
