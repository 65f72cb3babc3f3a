// y = activate(gate) * up, element by element.
//
// gate, up: f32[rows, width], of which each may be a part of longer rows, as what one projection to both gives
// ->  y: f32[rows, width], contiguous
// So many threads as params.lanes take a piece of a row together, then the next, as in copy.wgsl, four elements at a time. What
// is contiguous is one row, whose last group may reach into the padding every buffer has up to 16 bytes.
// Dispatch: ceil(ceil(units / turns) / (WG / lanes)), folded. Needs: nothing.
// Source: Shazeer 2020, GLU Variants Improve Transformer; transformers' LlamaMLP and T5DenseGatedActDense.
// @use activation
override WG: u32 = 64;

struct Params {
  units: u32, // rows·pieces
  turns: u32,
  lanes: u32, // divides WG
  piece: u32, // groups of four
  pieces: u32, // of a row
  width: u32, // of a row, in groups, the last perhaps in part
  stride: u32, // between rows of gate, and of up, in groups
  gate_offset: u32, // in groups
  up_offset: u32,
}

@group(0) @binding(0) var<storage, read> gate: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> up: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
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
    let row = unit / params.pieces;
    let first = (unit % params.pieces) * params.piece;
    let stop = min(first + params.piece, params.width);
    let gate_row = params.gate_offset + row * params.stride;
    let up_row = params.up_offset + row * params.stride;
    for (var c = first + lane % params.lanes; c < stop; c += params.lanes) {
      let g = gate[gate_row + c];
      y[row * params.width + c] = vec4<f32>(activate(g.x), activate(g.y), activate(g.z), activate(g.w)) * up[up_row + c];
    }
  }
}
