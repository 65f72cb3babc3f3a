// Loads and stores heads of any size and strides. Beyond the end of a head zeros are loaded, and nothing is stored. Contract:
// heads_vec4.
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

// The indices of numbers 4·group … 4·group + 3 of a head, clamped to its last.
fn places(start: u32, group: u32) -> vec4<u32> {
  return start + min(vec4<u32>(0u, 1u, 2u, 3u) + 4u * group, vec4<u32>(params.d - 1u));
}

fn without_tail(numbers: vec4<f32>, group: u32) -> vec4<f32> {
  return select(numbers, vec4<f32>(), vec4<u32>(0u, 1u, 2u, 3u) + 4u * group >= vec4<u32>(params.d));
}

// Numbers 4·group … 4·group + 3 of the head that begins at start.
fn load_q(start: u32, group: u32) -> vec4<f32> {
  let at = places(start, group);
  return without_tail(vec4<f32>(q[at.x], q[at.y], q[at.z], q[at.w]), group);
}

fn load_k(start: u32, group: u32) -> vec4<f32> {
  let at = places(start, group);
  return without_tail(vec4<f32>(k[at.x], k[at.y], k[at.z], k[at.w]), group);
}

fn load_v(start: u32, group: u32) -> vec4<f32> {
  let at = places(start, group);
  return without_tail(vec4<f32>(v[at.x], v[at.y], v[at.z], v[at.w]), group);
}

fn store_y(start: u32, group: u32, numbers: vec4<f32>) {
  for (var c = 0u; c < 4u; c++) {
    if (4u * group + c < params.d) {
      y[start + 4u * group + c] = numbers[c];
    }
  }
}
