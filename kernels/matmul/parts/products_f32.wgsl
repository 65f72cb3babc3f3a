// How a tile is kept in shared memory, and multiplied: as f32.
// @slot products: Staged, stage(group: vec4<f32>) -> Staged, add_products(a: Staged, b: Staged, sum: f32) -> f32
alias Staged = vec4<f32>;

fn stage(group: vec4<f32>) -> Staged {
  return group;
}

// A chain of four instructions everywhere; of dot() and an addition some compilers make five.
fn add_products(a: Staged, b: Staged, sum: f32) -> f32 {
  return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}
