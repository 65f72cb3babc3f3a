// y[dst(i)] = x[src(i)]: copies a strided view to a strided view. Bits are copied, not numbers, so it serves f32 and u32 and
// keeps NaN payloads.
//
// x: u32[any]  ->  y: u32[any], of which only the destination is written
// Both are rows of n elements, in up to five dimensions [n0, n1, n2, n3, n4]; an element is a number, or four contiguous ones.
// Long rows are cut into chunks. A worker, params.lanes neighbouring threads, moves params.items_per_thread chunks, one after
// the other: finding a chunk takes divisions, so only the first is found by them, and the others by counting. Strides and
// offsets count elements.
// Dispatch: ceil(ceil(chunks / items_per_thread) / (WG / lanes)), folded. Needs: nothing.
// @use element = element_u32x4
override WG: u32 = 64;

struct Params {
  chunks: u32, // n0·n1·n2·n3·n4·chunks_per_row
  items_per_thread: u32, // chunks, one after the other
  lanes: u32, // divides WG
  n: u32,
  chunk_size: u32, // elements
  chunks_per_row: u32,
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
  x_step: u32, // between the elements of a row
  y_offset: u32,
  y0: u32,
  y1: u32,
  y2: u32,
  y3: u32,
  y4: u32,
  y_step: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read_write> y: array<Element>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let worker = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * (WG / params.lanes) + lane / params.lanes;
  let first = worker * params.items_per_thread;
  let end = min(first + params.items_per_thread, params.chunks);

  var chunk = first % params.chunks_per_row;
  let r4 = first / params.chunks_per_row;
  var i4 = r4 % params.n4;
  let r3 = r4 / params.n4;
  var i3 = r3 % params.n3;
  let r2 = r3 / params.n3;
  var i2 = r2 % params.n2;
  let r1 = r2 / params.n2;
  var i1 = r1 % params.n1;
  var i0 = r1 / params.n1;

  for (var item = first; item < end; item++) {
    let src = params.x_offset + i0 * params.x0 + i1 * params.x1 + i2 * params.x2 + i3 * params.x3 + i4 * params.x4;
    let dst = params.y_offset + i0 * params.y0 + i1 * params.y1 + i2 * params.y2 + i3 * params.y3 + i4 * params.y4;
    let stop = min((chunk + 1u) * params.chunk_size, params.n);
    for (var c = chunk * params.chunk_size + lane % params.lanes; c < stop; c += params.lanes) {
      y[dst + c * params.y_step] = x[src + c * params.x_step];
    }

    chunk++;
    i4 += u32(chunk == params.chunks_per_row);
    chunk = select(chunk, 0u, chunk == params.chunks_per_row);
    i3 += u32(i4 == params.n4);
    i4 = select(i4, 0u, i4 == params.n4);
    i2 += u32(i3 == params.n3);
    i3 = select(i3, 0u, i3 == params.n3);
    i1 += u32(i2 == params.n2);
    i2 = select(i2, 0u, i2 == params.n2);
    i0 += u32(i1 == params.n1);
    i1 = select(i1, 0u, i1 == params.n1);
  }
}
