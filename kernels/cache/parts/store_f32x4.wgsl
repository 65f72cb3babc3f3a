// What a cache keeps of four neighbouring numbers: themselves.
// @slot kept: Real, Kept, keep(numbers: Real) -> Kept
// @use real_vec4
alias Kept = vec4<f32>;

fn keep(numbers: Real) -> Kept {
  return numbers;
}
