// Every query attends to every key that it sees.
// @slot edges: has_edge(b: u32, t: u32, s: u32, h: u32) -> bool
fn has_edge(b: u32, t: u32, s: u32, h: u32) -> bool {
  return true;
}
