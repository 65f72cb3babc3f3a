// Tiles in shared memory as f32.
// @slot products: Staged, stage(group: vec4<f32>) -> Staged, add_products(a: Staged, b: Staged, sum: f32) -> f32
// @slot products: row_scale_of(row: u32) -> f32, weight_scale_of(row: u32) -> f32
// @slot products: scaled(group: vec4<f32>, scale: f32) -> vec4<f32>, unscaled(sum: f32, scale: f32) -> f32
// @use scales_none
alias Staged = vec4<f32>;

fn stage(group: vec4<f32>) -> Staged {
  return group;
}

// Four multiply-adds on every compiler; some make five instructions of dot() and an addition.
fn add_products(a: Staged, b: Staged, sum: f32) -> f32 {
  return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}
