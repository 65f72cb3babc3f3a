// The candidate of a search for the largest number: the number as an order-preserving integer, and its index. Of equal keys
// the lowest index is first.
struct Candidate {
  key: u32,
  place: u32,
}

fn is_before(a: Candidate, b: Candidate) -> bool {
  return a.key > b.key || (a.key == b.key && a.place < b.place);
}
