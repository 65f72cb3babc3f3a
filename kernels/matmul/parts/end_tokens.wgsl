// The end of a product whose rows are the tokens of images, params.tokens each: the first of them is the class token instead,
// and to all their positions are added, which images share.
@group(0) @binding(3) var<storage, read> positions: array<f32>;
@group(0) @binding(5) var<storage, read> class_token: array<f32>;

fn finish(value: f32, row: u32, column: u32) -> f32 {
  let token = row % params.tokens;
  return select(value, class_token[column], token == 0u) + positions[token * params.y_stride + column];
}
