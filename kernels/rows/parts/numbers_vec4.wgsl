// The vector type of a row kernel: four contiguous numbers, for rows whose length is a multiple of 4.
// @slot numbers: Numbers, WIDTH, sum_of(numbers: Numbers) -> f32, max_of(numbers: Numbers) -> f32
// @slot numbers: exp_of(numbers: Numbers) -> Numbers
// @use math
alias Numbers = vec4<f32>;
const WIDTH = 4u;

fn sum_of(numbers: Numbers) -> f32 {
  return numbers.x + numbers.y + numbers.z + numbers.w;
}

fn max_of(numbers: Numbers) -> f32 {
  return max(max(numbers.x, numbers.y), max(numbers.z, numbers.w));
}

// e^x for x at most 0.
fn exp_of(numbers: Numbers) -> Numbers {
  return Numbers(
    exp_negative(numbers.x),
    exp_negative(numbers.y),
    exp_negative(numbers.z),
    exp_negative(numbers.w),
  );
}
