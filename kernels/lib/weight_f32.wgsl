// Weight loader, f32. A weight is [N, K] with rows padded to K4 = ceil(K / 4) groups of four. Every loader has
//   load_weight          a group of a row, dequantized, for kernels that read groups in any order
//   block_scale          a block's scale and minimum, w = scale.x · code + scale.y, for kernels that keep them
//   load_dequantized     a group, dequantized by its block's scale
//   load_packed, unpack  a word as it is stored, of which BLOCK share a scale; and the WORD groups of codes in it
//   dequantize           a group, from its codes and its block's scale
//   scale_dot            Σ x · w over some of a block, from dot_codes = Σ x · code and sum_x = Σ x
// @slot weight: weight, WORD, BLOCK, load_weight(row: u32, group: u32, K4: u32) -> vec4<f32>
// @slot weight: block_scale(row: u32, block: u32, K4: u32) -> vec2<f32>
// @slot weight: load_dequantized(scale: vec2<f32>, row: u32, group: u32, K4: u32) -> vec4<f32>
// @slot weight: Packed, load_packed(row: u32, word: u32, K4: u32) -> Packed, unpack(packed: Packed) -> array<vec4<f32>, WORD>
// @slot weight: dequantize(scale: vec2<f32>, codes: vec4<f32>) -> vec4<f32>
// @slot weight: scale_dot(row: u32, block: u32, K4: u32, dot_codes: f32, sum_x: f32) -> f32
// @use unquantized
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;

alias Packed = vec4<f32>;

fn load_weight(row: u32, group: u32, K4: u32) -> vec4<f32> {
  return weight[row * K4 + group];
}

fn load_packed(row: u32, word: u32, K4: u32) -> Packed {
  return weight[row * K4 + word];
}

fn unpack(packed: Packed) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(packed);
}
