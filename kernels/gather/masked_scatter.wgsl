// y[l] = features[source[l] - 1] where source[l] > 0, else x[l]: replaces placeholders by image features. Bits are copied.
//
// x: u32[R, D]  features: u32[n, D]  source: u32[R]  ->  y: u32[R, D]; an element is a number or, where D allows it, four
// Workers move chunks of rows, as in copy.wgsl. A source beyond n keeps x.
// Dispatch: ceil(ceil(chunks / items_per_thread) / (WG / lanes)), folded. Needs: nothing.
// Source: torch.Tensor.masked_scatter with the running count of the mask made on the host.
// @use element = element_u32x4
override WG: u32 = 64;

struct Params {
  chunks: u32, // R·chunks_per_row
  items_per_thread: u32, // chunks, one after the other
  lanes: u32, // divides WG
  D: u32, // elements
  chunk_size: u32, // elements
  chunks_per_row: u32,
  n: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> features: array<Element>;
@group(0) @binding(2) var<storage, read> source: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<Element>;
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
    let row = item / params.chunks_per_row;
    let first = (item % params.chunks_per_row) * params.chunk_size;
    let stop = min(first + params.chunk_size, params.D);
    let chosen = source[row];
    if (chosen > 0u && chosen <= params.n) {
      for (var c = first + lane % params.lanes; c < stop; c += params.lanes) {
        y[row * params.D + c] = features[(chosen - 1u) * params.D + c];
      }
    } else {
      for (var c = first + lane % params.lanes; c < stop; c += params.lanes) {
        y[row * params.D + c] = x[row * params.D + c];
      }
    }
  }
}
