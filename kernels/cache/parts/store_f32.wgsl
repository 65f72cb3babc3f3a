// Stores one number in an f32 cache. Serves any width.
// @use f32_element
alias Stored = f32;

fn encode(number: Element) -> Stored {
  return number;
}
