// Weight loader, bf16 stored as pairs in u32. A bf16 is the upper half of an f32: widening is a shift.
// @use plain_weight
@group(0) @binding(1) var<storage, read> weight: array<vec2<u32>>;

fn load_weight(row: u32, group: u32, K4: u32) -> vec4<f32> {
  let bits = weight[row * K4 + group];
  return bitcast<vec4<f32>>(vec4<u32>(bits.x << 16u, bits.x & 0xffff0000u, bits.y << 16u, bits.y & 0xffff0000u));
}
