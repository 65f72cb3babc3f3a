// f16 products: each row of x and of W is multiplied by a power of two (kernels/rows/f16_scales.wgsl) before it is rounded to f16,
// so that it is within f16's range; the sums are divided by both.

// Beyond the last row, the last row's.
fn row_scale_of(row: u32) -> f32 {
  return row_scales[min(row, params.M - 1u)];
}

fn weight_scale_of(row: u32) -> f32 {
  return weight_scales[row];
}

fn scaled(group: vec4<f32>, scale: f32) -> vec4<f32> {
  return group * scale;
}

// sum / scale, as a multiplication by the power of two with the negated exponent: exact, as WGSL's division need not be.
fn unscaled(sum: f32, scale: f32) -> f32 {
  return sum * bitcast<f32>((254u << 23u) - bitcast<u32>(scale));
}
