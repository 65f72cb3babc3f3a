// y[b, n, (c, dy, dx)] = pixels[b, c, py·P + dy, px·P + dx], n = py·NX + px: cuts images into patches. Bits are moved.
//
// pixels: u32[B, C, H, W]  ->  y: u32[B, NY·NX, C·P·P], NY = floor(H / P), NX = floor(W / P)
// One invocation an element of y. What does not fill a patch at the right and at the bottom is left out. A linear layer
// on the patches is a convolution whose stride equals its kernel.
// Dispatch: ceil(B·NY·NX·C·P·P / WG), folded. Needs: nothing.
// Source: torch.nn.Unfold and Conv2d; the order inside a patch is that of a Conv2d weight.
override WG: u32 = 64;

struct Params {
  size: u32,
  C: u32,
  H: u32,
  W: u32,
  P: u32,
  NY: u32,
  NX: u32,
}

@group(0) @binding(0) var<storage, read> pixels: array<u32>;
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
  let dx = i % params.P;
  let r1 = i / params.P;
  let dy = r1 % params.P;
  let r2 = r1 / params.P;
  let c = r2 % params.C;
  let r3 = r2 / params.C;
  let px = r3 % params.NX;
  let r4 = r3 / params.NX;
  let py = r4 % params.NY;
  let b = r4 / params.NY;
  y[i] = pixels[((b * params.C + c) * params.H + py * params.P + dy) * params.W + px * params.P + dx];
}
