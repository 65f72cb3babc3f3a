// The epilogue of a product whose rows are the tokens of images, params.tokens each: the first of them is replaced by the class
// token, and position embeddings are added to all. Images share both.
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
