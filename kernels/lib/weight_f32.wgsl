// Weight loader, f32. A weight is [N, K] with rows padded to K4 = ceil(K / 4) groups of four. Every loader gives a group by
// load_weight. For kernels that walk along a row it also gives the WORD groups of codes that lie in one word; BLOCK words
// share a scale, and weigh makes of Σ x · code and Σ x over some of them what they add to Σ x · w.
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;

const WORD = 1u;
const BLOCK = 1u;

fn load_weight(row: u32, group: u32, K4: u32) -> vec4<f32> {
  return weight[row * K4 + group];
}

fn load_codes(row: u32, word: u32, K4: u32) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(load_weight(row, word, K4));
}

fn weigh(row: u32, block: u32, K4: u32, by_codes: f32, by_ones: f32) -> f32 {
  return by_codes;
}
