// Weight loader, f16 stored as pairs in u32. unpack2x16float needs no GPU feature, and is as fast as native f16 loads.
// @use plain_weight
@group(0) @binding(1) var<storage, read> weight: array<vec2<u32>>;

fn load_weight(row: u32, group: u32, K4: u32) -> vec4<f32> {
  let bits = weight[row * K4 + group];
  return vec4<f32>(unpack2x16float(bits.x), unpack2x16float(bits.y));
}
