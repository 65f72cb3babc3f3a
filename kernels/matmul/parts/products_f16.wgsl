// How a tile is kept in shared memory, and multiplied: as f16, in half the bytes. f32 holds all digits of a product of two f16,
// and sums are f32: what is lost is lost when a number is staged.
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
