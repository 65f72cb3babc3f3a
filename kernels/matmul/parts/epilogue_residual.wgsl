// Epilogue: adds the residual, if there is one. load_epilogue() loads the operands, epilogue() applies them; operands need not be
// loaded where has_epilogue() is false.
// @slot epilogue: EpilogueOperands, has_epilogue() -> bool, load_epilogue(row: u32, column: u32) -> EpilogueOperands
// @slot epilogue: epilogue(value: f32, row: u32, operands: EpilogueOperands) -> f32
@group(0) @binding(3) var<storage, read> residual: array<f32>;

alias EpilogueOperands = f32;

fn has_epilogue() -> bool {
  return params.has_residual != 0u;
}

fn load_epilogue(row: u32, column: u32) -> EpilogueOperands {
  return residual[row * params.y_stride + column];
}

fn epilogue(value: f32, row: u32, operands: EpilogueOperands) -> f32 {
  return select(value, value + operands, has_epilogue());
}
