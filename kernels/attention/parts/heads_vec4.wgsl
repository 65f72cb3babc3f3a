// Loads and stores heads, one vec4 at a time; d, strides and offsets are multiples of 4.
// @slot heads: q, k, v, y, store_y(start: u32, group: u32, numbers: vec4<f32>)
// @slot heads: load_q(start: u32, group: u32) -> vec4<f32>
// @slot heads: load_k(start: u32, group: u32) -> vec4<f32>
// @slot heads: load_v(start: u32, group: u32) -> vec4<f32>
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;

// Numbers 4·group … 4·group + 3 of the head that begins at start.
fn load_q(start: u32, group: u32) -> vec4<f32> {
  return q[start / 4u + group];
}

fn load_k(start: u32, group: u32) -> vec4<f32> {
  return k[start / 4u + group];
}

fn load_v(start: u32, group: u32) -> vec4<f32> {
  return v[start / 4u + group];
}

fn store_y(start: u32, group: u32, numbers: vec4<f32>) {
  y[start / 4u + group] = numbers;
}
