// Dequantizing loader of bf16 weights, two in a u32. A bf16 is the upper half of an f32: widening is a shift.
// @use unquantized
@group(0) @binding(1) var<storage, read> weight: array<vec2<u32>>;

alias Packed = vec2<u32>;

fn load_weight(row: u32, group: u32, K4: u32) -> vec4<f32> {
  return widen(load_packed(row, group, K4));
}

fn load_packed(row: u32, word: u32, K4: u32) -> Packed {
  return weight[row * K4 + word];
}

fn unpack(bits: Packed) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(widen(bits));
}

fn widen(bits: Packed) -> vec4<f32> {
  return bitcast<vec4<f32>>(vec4<u32>(bits.x << 16u, bits.x & 0xffff0000u, bits.y << 16u, bits.y & 0xffff0000u));
}
