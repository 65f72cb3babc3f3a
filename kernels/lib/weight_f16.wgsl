// Weight loader, f16 stored as pairs in u32. unpack2x16float needs no GPU feature, and is as fast as native f16 loads.
@group(0) @binding(1) var<storage, read> weight: array<vec2<u32>>;

fn load_weight(i: u32) -> vec4<f32> {
  let bits = weight[i];
  return vec4<f32>(unpack2x16float(bits.x), unpack2x16float(bits.y));
}
