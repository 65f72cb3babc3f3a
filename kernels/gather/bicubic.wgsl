// y[i, j, c] = Σ_p Σ_q wy[p] · wx[q] · x[fy - 1 + p, fx - 1 + q, c]: bicubic interpolation of a grid of vectors, p and q from
// 0 to 3.
//
// x: f32[h, w, D]  ->  y: f32[H, W, D]
// The grids' outer edges coincide, so that the centre of y's row i is x's row (i + 0.5) · h / H - 0.5 =: fy + ty. wy are the
// weights of the four rows around it, Keys' cubic with a = -0.75; rows beyond an edge are the edge's. Columns likewise. There
// is no antialiasing. One invocation an element of y.
// Dispatch: ceil(H·W·D / WG), folded. Needs: nothing.
// Source: torch.nn.functional.interpolate(mode="bicubic", align_corners=False), channels last; Keys 1981.
override WG: u32 = 64;

const A: f32 = -0.75;

struct Params {
  size: u32,
  h: u32,
  w: u32,
  W: u32,
  D: u32,
  // h / H and w / W.
  scale_y: f32,
  scale_x: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

// Weights of the points at distances 1 + t, t, 1 - t and 2 - t, for t from 0 to 1.
fn weights(t: f32) -> vec4<f32> {
  return vec4<f32>(outer(1 + t), inner(t), inner(1 - t), outer(2 - t));
}

// Of a point at distance d, at most 1.
fn inner(d: f32) -> f32 {
  return ((A + 2) * d - (A + 3)) * d * d + 1;
}

// Of a point at distance d, from 1 to 2.
fn outer(d: f32) -> f32 {
  return ((A * d - 5 * A) * d + 8 * A) * d - 4 * A;
}

// Four neighbouring rows or columns of n, the second of them first; beyond an edge, the edge.
fn taps(first: i32, n: u32) -> vec4<u32> {
  return vec4<u32>(clamp(vec4<i32>(first - 1, first, first + 1, first + 2), vec4<i32>(0), vec4<i32>(i32(n) - 1)));
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  if (i >= params.size) {
    return;
  }
  let c = i % params.D;
  let column = (i / params.D) % params.W;
  let row = i / params.D / params.W;

  let sy = (f32(row) + 0.5) * params.scale_y - 0.5;
  let sx = (f32(column) + 0.5) * params.scale_x - 0.5;
  let wy = weights(sy - floor(sy));
  let wx = weights(sx - floor(sx));
  let ys = taps(i32(floor(sy)), params.h);
  let xs = taps(i32(floor(sx)), params.w);

  var sum = 0.0;
  for (var p = 0; p < 4; p++) {
    var across = 0.0;
    for (var q = 0; q < 4; q++) {
      across += wx[q] * x[(ys[p] * params.w + xs[q]) * params.D + c];
    }
    sum += wy[p] * across;
  }
  y[i] = sum;
}
