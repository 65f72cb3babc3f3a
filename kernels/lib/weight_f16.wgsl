// Dequantizing loader of f16 weights, two in a u32. unpack2x16float needs no GPU feature, and is as fast as native f16 loads.
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
  return vec4<f32>(unpack2x16float(bits.x), unpack2x16float(bits.y));
}
