// Stores four neighbouring numbers in an f16 cache.
// @use f32x4_element
// @use f16x2
alias Stored = vec2<u32>;

fn encode(numbers: Element) -> Stored {
  return vec2<u32>(pack_f16x2(numbers.xy), pack_f16x2(numbers.zw));
}
