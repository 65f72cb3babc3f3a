// y[t] = weight[ids[t]]: token embeddings from a table, or from a shard of its rows.
//
// ids: u32[n] weight: [V, D] by a dequantizing loader, rows first_row … first_row + rows - 1 of it -> y: f32[n, D]
// One invocation for four numbers of a row. Each shard of the table has its own launch, which writes only rows of its ids; the
// first shard writes zeros for an id beyond the table.
// Dispatch: ceil(n · ceil(D / 4) / WG), folded. Needs: nothing.
// @use weight = weight_f32
override WG: u32 = 64;

struct Params {
  n: u32,
  V: u32,
  D: u32,
  first_row: u32,
  rows: u32,
}

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  let K4 = (params.D + 3u) / 4u;
  let t = i / K4;
  if (t >= params.n) {
    return;
  }
  let id = ids[t];
  let row = id - params.first_row; // below first_row this wraps to more than any number of rows
  let unknown = id >= params.V;
  if (select(row >= params.rows, params.first_row != 0u, unknown)) {
    return;
  }
  let k = i % K4;
  var values = vec4<f32>(0.0);
  if (!unknown) {
    values = load_weight(row, k, K4);
  }
  for (var c = 0u; c < min(4u, params.D - k * 4u); c++) {
    y[t * params.D + k * 4u + c] = values[c];
  }
}
