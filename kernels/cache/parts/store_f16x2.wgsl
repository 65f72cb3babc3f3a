// What a cache of halves keeps of two neighbouring numbers, for rotary heads whose half is not divisible by four.
// @use half
alias Real = vec2<f32>;
alias Kept = u32;

fn keep(numbers: Real) -> Kept {
  return pack_half(numbers);
}
