// Rows of x and of W are multiplied by powers of two of their own (kernels/rows/f16_scales.wgsl) before they are rounded to f16,
// whose range they could leave otherwise; the sums are divided by both.

// Behind the last row the last's.
fn row_scale_of(row: u32) -> f32 {
  return row_scales[min(row, params.M - 1u)];
}

fn weight_scale_of(row: u32) -> f32 {
  return weight_scales[row];
}

fn scaled(group: vec4<f32>, scale: f32) -> vec4<f32> {
  return group * scale;
}

// By the power of two with the opposite exponent, which is exact; WGSL's division need not be.
fn unscaled(sum: f32, scale: f32) -> f32 {
  return sum * bitcast<f32>((254u << 23u) - bitcast<u32>(scale));
}
