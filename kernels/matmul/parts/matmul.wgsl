// Shared by all products y = activate(x Wᵀ + bias) + residual: Params, bias and store. The last step, by default the residual, is
// the slot epilogue.
// The bias is added after the sum: accumulating onto it would round every product to the bias's digits.
// Kernels whose threads walk along K sum runs of RUN groups, then add the runs: a large product, as massive channels have, costs
// the digits of its run only.
// A weight too large for one binding is sharded by rows; a launch has N rows of it and writes N columns of y.
// In a gated linear unit W is the gate's rows, then the up projection's, and FACTORS is 2: y = activate(x Gateᵀ + bias) *
// (x Upᵀ + bias) + residual. A launch has the same N rows of both. The two sums of a column of y are adjacent, so that one
// invocation stores them.
// @use epilogue = epilogue_residual
// @use activation

override FACTORS: u32 = 1; // sums of a column of y: 2 in a gated linear unit
const RUN = 64u; // groups of four

struct Params {
  M: u32,
  N: u32,
  K: u32,
  column0: u32, // of y: the shard's first
  row0: u32, // of the bound weight: the shard's first
  y_stride: u32, // columns of y
  has_bias: u32, // 0: bias is a placeholder of one element
  has_residual: u32, // 0: residual is a placeholder
  tokens: u32, // of an image, in patch embedding; in other products tokens, height and width are 0
  height: u32, // of an image, in pixels
  width: u32,
}

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> row_scales: array<f32>; // of the rows of x, in f16 products; else a placeholder
@group(0) @binding(6) var<storage, read> weight_scales: array<f32>; // of the rows of W, likewise
@group(0) @binding(8) var<uniform> params: Params;

// Groups of four numbers in a row of W. The last is padded; load_input gives zeros there.
fn groups_of_four() -> u32 {
  return (params.K + 3u) / 4u;
}

// The row of W for a factor of a column; beyond the last column, the last column's.
fn row_of(column: u32, factor: u32) -> u32 {
  return params.row0 + factor * params.N + min(column, params.N - 1u);
}

fn bias_of(column: u32, factor: u32) -> f32 {
  if (params.has_bias == 0u) {
    return 0.0;
  }
  return bias[factor * params.y_stride + params.column0 + min(column, params.N - 1u)];
}

// Stores an element of y, from the sums of the column's first factor and of its last, which are the same if FACTORS is 1.
fn store(row: u32, column: u32, first: f32, last: f32) {
  if (row < params.M && column < params.N) {
    var operands: EpilogueOperands;
    if (has_epilogue()) {
      operands = load_epilogue(row, params.column0 + column);
    }
    store_with(operands, row, column, vec2<f32>(first, last));
  }
}

// As store, with the epilogue's operands loaded before. Nothing is stored outside of y.
fn store_with(operands: EpilogueOperands, row: u32, column: u32, sums: vec2<f32>) {
  if (row < params.M && column < params.N) {
    var value = activate(sums.x);
    if (FACTORS > 1u) {
      value *= sums.y;
    }
    y[row * params.y_stride + params.column0 + column] = epilogue(value, row, operands);
  }
}
