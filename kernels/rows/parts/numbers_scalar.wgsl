// The vector type of a row kernel: one number. For rows of any length.
// @use math
alias Numbers = f32;
const WIDTH = 1u;

fn sum_of(numbers: Numbers) -> f32 {
  return numbers;
}

fn max_of(numbers: Numbers) -> f32 {
  return numbers;
}

fn exp_of(numbers: Numbers) -> Numbers {
  return exp_negative(numbers);
}
