// y[dst(i)] = x[src(i)]: moves a strided view of up to five dimensions into a strided place. Bits are moved, not numbers,
// so it serves f32 and u32 alike and keeps NaN payloads.
//
// x: u32[any]  ->  y: u32[any], of which only the destination is written
// One invocation an element of shape [n0, n1, n2, n3, n4]; strides and offsets count elements.
// Dispatch: ceil(n0·n1·n2·n3·n4 / WG), folded. Needs: nothing.
override WG: u32 = 64;

struct Params {
  size: u32,
  n1: u32,
  n2: u32,
  n3: u32,
  n4: u32,
  x_offset: u32,
  x0: u32,
  x1: u32,
  x2: u32,
  x3: u32,
  x4: u32,
  y_offset: u32,
  y0: u32,
  y1: u32,
  y2: u32,
  y3: u32,
  y4: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(1) @binding(0) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * WG + lane;
  if (i >= params.size) {
    return;
  }
  let i4 = i % params.n4;
  let r3 = i / params.n4;
  let i3 = r3 % params.n3;
  let r2 = r3 / params.n3;
  let i2 = r2 % params.n2;
  let r1 = r2 / params.n2;
  let i1 = r1 % params.n1;
  let i0 = r1 / params.n1;
  let src = params.x_offset + i0 * params.x0 + i1 * params.x1 + i2 * params.x2 + i3 * params.x3 + i4 * params.x4;
  let dst = params.y_offset + i0 * params.y0 + i1 * params.y1 + i2 * params.y2 + i3 * params.y3 + i4 * params.y4;
  y[dst] = x[src];
}
