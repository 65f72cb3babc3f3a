// y[i] = x[rows[i]]: gathers rows. Bits are copied.
//
// x: u32[R, D]  rows: u32[rows]  ->  y: u32[rows, D]; an element is a number or, where D allows it, four of them
// Workers move chunks of rows, as in copy.wgsl. A row beyond R gives zeros.
// Dispatch: ceil(ceil(chunks / items_per_thread) / (WG / lanes)), folded. Needs: nothing.
// Source: torch.index_select along dimension 0.
// @use element = element_u32x4
override WG: u32 = 64;

struct Params {
  chunks: u32, // rows·chunks_per_row
  items_per_thread: u32, // chunks, one after the other
  lanes: u32, // divides WG
  D: u32, // elements
  chunk_size: u32, // elements
  chunks_per_row: u32,
  R: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<Element>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let worker = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * (WG / params.lanes) + lane / params.lanes;
  let end = min((worker + 1u) * params.items_per_thread, params.chunks);
  for (var item = worker * params.items_per_thread; item < end; item++) {
    let i = item / params.chunks_per_row;
    let first = (item % params.chunks_per_row) * params.chunk_size;
    let stop = min(first + params.chunk_size, params.D);
    let row = rows[i];
    if (row < params.R) {
      for (var c = first + lane % params.lanes; c < stop; c += params.lanes) {
        y[i * params.D + c] = x[row * params.D + c];
      }
    } else {
      for (var c = first + lane % params.lanes; c < stop; c += params.lanes) {
        y[i * params.D + c] = Element();
      }
    }
  }
}
