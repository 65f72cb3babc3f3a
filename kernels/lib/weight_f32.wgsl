// Weight loader, f32. A weight is [N, K] with rows padded to K4 = ceil(K / 4) groups of four. Every loader has
//   load_weight            a group of a row, for kernels that jump about
//   line_of, load_by       a block's scale (and least number), and a group by it, for kernels that keep the first
//   load_packed, unpack    a word, of which BLOCK share a scale, as it lies in memory; and the WORD groups of codes in it
//   by_line                a group, of its codes and its block's scale
//   weigh                  what Σ x · code and Σ x over some of a block add to Σ x · w, for kernels that walk along a row
// @slot weight: weight, WORD, BLOCK, load_weight(row: u32, group: u32, K4: u32) -> vec4<f32>
// @slot weight: line_of(row: u32, block: u32, K4: u32) -> vec2<f32>
// @slot weight: load_by(line: vec2<f32>, row: u32, group: u32, K4: u32) -> vec4<f32>
// @slot weight: Packed, load_packed(row: u32, word: u32, K4: u32) -> Packed, unpack(packed: Packed) -> array<vec4<f32>, WORD>
// @slot weight: by_line(line: vec2<f32>, codes: vec4<f32>) -> vec4<f32>
// @slot weight: weigh(row: u32, block: u32, K4: u32, by_codes: f32, by_ones: f32) -> f32
// @use plain_weight
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
