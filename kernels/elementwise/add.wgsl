// y = a + b, elementwise; b is repeated, which broadcasts it over a's leading dimensions.
//
// a: f32[n]  b: f32[m], n a multiple of m  ->  y: f32[n]
// An invocation takes items_per_thread groups of four elements, WG groups apart; the last may reach into the padding every
// buffer has up to 16 bytes. b is loaded by single elements, as m need not be a multiple of 4.
// Dispatch: ceil(ceil(n / 4) / (WG · items_per_thread)), folded. Needs: nothing.
override WG: u32 = 64;

struct Params {
  groups: u32, // ceil(n / 4)
  items_per_thread: u32, // groups
  m: u32,
}

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

fn after(j: u32) -> u32 {
  return select(j + 1u, 0u, j + 1u == params.m);
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let workgroup = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let end = min((workgroup + 1u) * WG * params.items_per_thread, params.groups);
  for (var i = workgroup * WG * params.items_per_thread + lane; i < end; i += WG) {
    let j0 = (i * 4u) % params.m;
    let j1 = after(j0);
    let j2 = after(j1);
    let j3 = after(j2);
    y[i] = a[i] + vec4<f32>(b[j0], b[j1], b[j2], b[j3]);
  }
}
