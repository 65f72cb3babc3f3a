// Epilogue of patch embedding: rows are the tokens of images, params.tokens each. The first row of an image becomes the class
// token; position embeddings are added to all rows.
@group(0) @binding(3) var<storage, read> positions: array<f32>;
@group(0) @binding(7) var<storage, read> class_token: array<f32>;

struct EpilogueOperands {
  class_token: f32,
  position: f32,
}

fn has_epilogue() -> bool {
  return true;
}

fn load_epilogue(row: u32, column: u32) -> EpilogueOperands {
  return EpilogueOperands(class_token[column], positions[row % params.tokens * params.y_stride + column]);
}

fn epilogue(value: f32, row: u32, operands: EpilogueOperands) -> f32 {
  return select(value, operands.class_token, row % params.tokens == 0u) + operands.position;
}
