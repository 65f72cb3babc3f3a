// Loads heads whose k and v are f16, two in a u32, four numbers at a time; d is a multiple of 4. Strides and offsets of k and v
// count u32 and are multiples of 2; those of q are multiples of 4. Contract: heads_vec4.
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> v: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;

// Numbers 4·group … 4·group + 3 of the head that begins at start.
fn load_q(start: u32, group: u32) -> vec4<f32> {
  return q[start / 4u + group];
}

fn load_k(start: u32, group: u32) -> vec4<f32> {
  let bits = k[start / 2u + group];
  return vec4<f32>(unpack2x16float(bits.x), unpack2x16float(bits.y));
}

fn load_v(start: u32, group: u32) -> vec4<f32> {
  let bits = v[start / 2u + group];
  return vec4<f32>(unpack2x16float(bits.x), unpack2x16float(bits.y));
}

fn store_y(start: u32, group: u32, numbers: vec4<f32>) {
  y[start / 4u + group] = numbers;
}
