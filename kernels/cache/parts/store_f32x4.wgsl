// Stores four neighbouring numbers in an f32 cache. Element is what the kernel computes with, Stored what the cache holds.
// @slot store: Element, Stored, encode(numbers: Element) -> Stored
// @use f32x4_element
alias Stored = vec4<f32>;

fn encode(numbers: Element) -> Stored {
  return numbers;
}
