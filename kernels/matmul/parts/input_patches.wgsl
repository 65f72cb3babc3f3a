// Input loader for patches where they lie in images: row r of x is token r % params.tokens of an image, of which the first
// has no patch, and the others one each, row after row. A patch is ordered (channel, y, x), as a convolution's weight is.
@group(0) @binding(0) var<storage, read> x: array<f32>;
override PATCH: u32 = 14; // side, in pixels; by a constant, division is cheap

// Where in x: f32[images, channels, height, width] the patch of a row begins; behind the last row it is the last's.
fn input_of(row: u32) -> u32 {
  let inside = min(row, params.M - 1u);
  let image = inside / params.tokens;
  let place = max(inside % params.tokens, 1u) - 1u; // the class token's sums are thrown away
  let columns = params.width / PATCH;
  let channels = params.K / (PATCH * PATCH);
  return (image * channels * params.height + place / columns * PATCH) * params.width + place % columns * PATCH;
}

// Numbers 4·group … 4·group + 3 of a patch; zeros behind its end.
fn load_input(start: u32, group: u32) -> vec4<f32> {
  let k = vec4<u32>(0u, 1u, 2u, 3u) + 4u * group;
  let inside = min(k, vec4<u32>(params.K - 1u));
  let line = inside / PATCH;
  let at = start + (line / PATCH * params.height + line % PATCH) * params.width + inside % PATCH;
  return select(vec4<f32>(), vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]), k < vec4<u32>(params.K));
}
