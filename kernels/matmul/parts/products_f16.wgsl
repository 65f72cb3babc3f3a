// Tiles in shared memory as f16, in half the bytes of f32. The product of two f16 is exact in f32, and sums are f32: the only
// rounding to f16 is that of staging.
// @use scales_rows
alias Staged = vec2<u32>;

fn stage(group: vec4<f32>) -> Staged {
  return Staged(pack2x16float(group.xy), pack2x16float(group.zw));
}

fn add_products(a: Staged, b: Staged, sum: f32) -> f32 {
  let x = vec4<f32>(unpack2x16float(a.x), unpack2x16float(a.y));
  let w = vec4<f32>(unpack2x16float(b.x), unpack2x16float(b.y));
  return fma(x.w, w.w, fma(x.z, w.z, fma(x.y, w.y, fma(x.x, w.x, sum))));
}
