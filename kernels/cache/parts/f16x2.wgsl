// Packs two f16 into a u32, by builtins that need no GPU feature. A number outside f16's range becomes f16's largest, so that
// no infinity enters a sum; a NaN stays a NaN. To which neighbouring f16 a number is rounded, WGSL leaves to the driver.
const LARGEST_F16 = vec2<f32>(65504.0);

fn pack_f16x2(numbers: vec2<f32>) -> u32 {
  // Not clamp(), which turns NaN into a number and so hides a fault.
  let bounded = select(select(numbers, -LARGEST_F16, numbers < -LARGEST_F16), LARGEST_F16, numbers > LARGEST_F16);
  return pack2x16float(bounded);
}
