// A product of x as it is.
// @slot norm: IS_NORMED, gain_of(group: u32) -> vec4<f32>, norm_of(lane: u32, squares: f32) -> f32
const IS_NORMED = false;

// What numbers 4·group … 4·group + 3 of a row of x are multiplied by.
fn gain_of(group: u32) -> vec4<f32> {
  return vec4<f32>(1.0);
}

// What the sums of a row are multiplied by, where a thread has its share of the row's Σ x². All threads call it.
fn norm_of(lane: u32, squares: f32) -> f32 {
  return 1.0;
}
