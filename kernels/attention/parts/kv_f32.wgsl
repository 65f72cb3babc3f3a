// Loads f32 keys or values, one number at a time.
// @slot kv: kv, load_kv(start: u32, c: u32) -> f32
@group(0) @binding(1) var<storage, read> kv: array<f32>;

// Number c of the head that begins at start.
fn load_kv(start: u32, c: u32) -> f32 {
  return kv[start + c];
}
