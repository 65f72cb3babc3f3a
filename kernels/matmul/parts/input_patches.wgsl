// Input loader of patch embedding: reads patches in place from x: f32[images, channels, height, width], with no unfolded copy.
// Row r is token r % params.tokens of image r / params.tokens. Token 0 is the class token and has no patch; token 1 + p has patch
// p, in row-major order. The numbers of a patch are ordered (channel, y, x), as the weight of a convolution.
@group(0) @binding(0) var<storage, read> x: array<f32>;
override PATCH: u32 = 14; // side, in pixels; an override, because division by a constant is cheap

// The index in x where a row's patch begins; beyond the last row, the last row's.
fn input_of(row: u32) -> u32 {
  let inside = min(row, params.M - 1u);
  let image = inside / params.tokens;
  let place = max(inside % params.tokens, 1u) - 1u; // the epilogue replaces the class token's sums
  let columns = params.width / PATCH;
  let channels = params.K / (PATCH * PATCH);
  return (image * channels * params.height + place / columns * PATCH) * params.width + place % columns * PATCH;
}

// Numbers 4·group … 4·group + 3 of the patch that begins at start; zeros beyond its end.
fn load_input(start: u32, group: u32) -> vec4<f32> {
  let k = vec4<u32>(0u, 1u, 2u, 3u) + 4u * group;
  let inside = min(k, vec4<u32>(params.K - 1u));
  let line = inside / PATCH;
  let at = start + (line / PATCH * params.height + line % PATCH) * params.width + inside % PATCH;
  return select(vec4<f32>(), vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]), k < vec4<u32>(params.K));
}
