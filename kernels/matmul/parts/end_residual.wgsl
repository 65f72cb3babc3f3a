// The end of a product: what is added to it, if anything. finish() is given what load_end() found, if has_end() says so.
// @slot end: End, has_end() -> bool, load_end(row: u32, column: u32) -> End, finish(value: f32, row: u32, end: End) -> f32
@group(0) @binding(3) var<storage, read> residual: array<f32>;

alias End = f32;

fn has_end() -> bool {
  return params.has_residual != 0u;
}

fn load_end(row: u32, column: u32) -> End {
  return residual[row * params.y_stride + column];
}

fn finish(value: f32, row: u32, end: End) -> f32 {
  return select(value, value + end, has_end());
}
