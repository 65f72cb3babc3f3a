// What every product y = activate(x Wᵀ + bias) + residual shares: its Params, and how a sum becomes an element of y. The last
// step is a slot, which epilogue_tokens fills otherwise.
// A bias is added to the sum of the products, not they to it, which would round each of them to the bias's digits.
// Kernels that walk along K one by one add up runs of RUN groups by themselves, then the runs: a large product, as massive
// channels give, then takes digits from those of its run only, and of few runs.
// A weight too large for one binding comes in shards; a launch then sees N of its rows and writes N columns of y.
// Where W is a gate above what it lets through, FACTORS is 2: y = activate(x Gateᵀ + bias) * (x Upᵀ + bias) + residual. A
// launch sees the same N rows of both, and what computes a column of y computes both its sums, one after the other.
// @use epilogue = epilogue_residual
// @use activation

override FACTORS: u32 = 1; // of a column of y
const RUN = 64u; // groups of four

struct Params {
  M: u32,
  N: u32,
  K: u32,
  column0: u32, // where this shard's columns begin
  row0: u32, // where its rows of W do
  y_stride: u32, // columns of y
  has_bias: u32, // else bias is a tensor of one element
  has_residual: u32, // else residual is one too
  tokens: u32, // of an image, where rows are such; they, height and width else are 0
  height: u32, // of an image, in pixels
  width: u32,
}

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> row_scales: array<f32>; // of x, where it is rounded to f16; else one element
@group(0) @binding(6) var<storage, read> weight_scales: array<f32>; // of W's rows, likewise
@group(0) @binding(8) var<uniform> params: Params;

// Groups of four numbers in a row of W, the last filled up; x is zero there.
fn groups_of_four() -> u32 {
  return (params.K + 3u) / 4u;
}

// The row of W for a factor of a column; behind the last column it is the last's.
fn row_of(column: u32, factor: u32) -> u32 {
  return params.row0 + factor * params.N + min(column, params.N - 1u);
}

fn bias_of(column: u32, factor: u32) -> f32 {
  if (params.has_bias == 0u) {
    return 0.0;
  }
  return bias[factor * params.y_stride + params.column0 + min(column, params.N - 1u)];
}

// Takes the sums of a column's first factor and of its last, which is the same if there is but one.
fn store(row: u32, column: u32, first: f32, last: f32) {
  if (row < params.M && column < params.N) {
    var operands: EpilogueOperands;
    if (has_epilogue()) {
      operands = load_epilogue(row, params.column0 + column);
    }
    store_with(operands, row, column, vec2<f32>(first, last));
  }
}

// The same with the epilogue's operands loaded before, also for a row and column outside of y.
fn store_with(operands: EpilogueOperands, row: u32, column: u32, sums: vec2<f32>) {
  if (row < params.M && column < params.N) {
    var value = activate(sums.x);
    if (FACTORS > 1u) {
      value *= sums.y;
    }
    y[row * params.y_stride + params.column0 + column] = epilogue(value, row, operands);
  }
}
