// y = activate(x), elementwise.
//
// x: f32[n]  ->  y: f32[n]
// An invocation takes items_per_thread groups of four elements, WG groups apart, by twos; the last may reach into the padding
// every buffer has up to 16 bytes.
// Dispatch: ceil(ceil(n / 4) / (WG · items_per_thread)), folded. Needs: nothing.
// @use activation
override WG: u32 = 64;

struct Params {
  groups: u32, // ceil(n / 4)
  items_per_thread: u32, // groups, an even number
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

fn activate_four(v: vec4<f32>) -> vec4<f32> {
  return vec4<f32>(activate(v.x), activate(v.y), activate(v.z), activate(v.w));
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let workgroup = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let end = min((workgroup + 1u) * WG * params.items_per_thread, params.groups);
  for (var i = workgroup * WG * params.items_per_thread + lane; i < end; i += 2u * WG) {
    let j = min(i + WG, end - 1u); // at the end perhaps another thread's too, which stores the same
    let v = activate_four(x[i]);
    let w = activate_four(x[j]);
    y[i] = v;
    y[j] = w;
  }
}
