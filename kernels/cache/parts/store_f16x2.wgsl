// Stores two neighbouring numbers in an f16 cache, for rotary heads where half a head is not a multiple of 4.
// @use f16x2
alias Element = vec2<f32>;
alias Stored = u32;

fn encode(numbers: Element) -> Stored {
  return pack_f16x2(numbers);
}
