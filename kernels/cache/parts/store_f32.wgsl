// What a cache keeps of a number: itself. Serves any width.
// @use real_scalar
alias Kept = f32;

fn keep(number: Real) -> Kept {
  return number;
}
