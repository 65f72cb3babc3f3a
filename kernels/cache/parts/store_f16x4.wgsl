// What a cache of halves keeps of four neighbouring numbers.
// @use real_vec4
// @use half
alias Kept = vec2<u32>;

fn keep(numbers: Real) -> Kept {
  return vec2<u32>(pack_half(numbers.xy), pack_half(numbers.zw));
}
