// What a search for the largest number compares: the number as an integer of the same order, and where it stands. Of equal
// keys the lowest place is first.
struct Candidate {
  key: u32,
  place: u32,
}

fn is_before(a: Candidate, b: Candidate) -> bool {
  return a.key > b.key || (a.key == b.key && a.place < b.place);
}
