// y[i] = x[rows[i]]: picks rows in any order. Bits are moved.
//
// x: u32[R, D]  rows: u32[rows]  ->  y: u32[rows, D]; an element is a number or, where D allows it, four of them
// So many threads as params.lanes move a piece of a row together, then the next, as in copy.wgsl. A row beyond R comes out as
// zeros.
// Dispatch: ceil(ceil(units / turns) / (WG / lanes)), folded. Needs: nothing.
// Source: torch.index_select along dimension 0.
// @use element = element_u32x4
override WG: u32 = 64;

struct Params {
  units: u32, // rows·pieces
  turns: u32,
  lanes: u32, // divides WG
  D: u32, // elements
  piece: u32, // elements
  pieces: u32, // of a row
  R: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<Element>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let team = (group.x + group.y * groups.x) * (WG / params.lanes) + lane / params.lanes;
  let end = min((team + 1u) * params.turns, params.units);
  for (var unit = team * params.turns; unit < end; unit++) {
    let i = unit / params.pieces;
    let first = (unit % params.pieces) * params.piece;
    let stop = min(first + params.piece, params.D);
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
