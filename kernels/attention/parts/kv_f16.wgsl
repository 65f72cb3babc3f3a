// Loads f16 keys or values, two in a u32, one number at a time; start counts u32. Contract: kv_f32.
@group(0) @binding(1) var<storage, read> kv: array<u32>;

// Number c of the head that begins at start.
fn load_kv(start: u32, c: u32) -> f32 {
  return unpack2x16float(kv[start + c / 2u])[c % 2u];
}
