// Two f16 in a u32, by builtins that need no GPU feature. What lies beyond f16's range becomes its largest number, so that no
// infinity enters a sum; a NaN stays one. Which of its two neighbours a number becomes, WGSL leaves to the driver.
const LARGEST_HALF = vec2<f32>(65504.0);

fn pack_half(numbers: vec2<f32>) -> u32 {
  // Not clamp(), which turns NaN into a number and so hides a fault.
  let bounded = select(select(numbers, -LARGEST_HALF, numbers < -LARGEST_HALF), LARGEST_HALF, numbers > LARGEST_HALF);
  return pack2x16float(bounded);
}
