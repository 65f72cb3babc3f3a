// f32 products: rows of x and W are not scaled.

fn row_scale_of(row: u32) -> f32 {
  return 1.0;
}

fn weight_scale_of(row: u32) -> f32 {
  return 1.0;
}

fn scaled(group: vec4<f32>, scale: f32) -> vec4<f32> {
  return group;
}

fn unscaled(sum: f32, scale: f32) -> f32 {
  return sum;
}
