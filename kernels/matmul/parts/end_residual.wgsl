// The end of a product: what is added to it, if anything.
// @slot end: finish(value: f32, row: u32, column: u32) -> f32
@group(0) @binding(3) var<storage, read> residual: array<f32>;

fn finish(value: f32, row: u32, column: u32) -> f32 {
  if (params.has_residual == 0u) {
    return value;
  }
  return value + residual[row * params.y_stride + column];
}
