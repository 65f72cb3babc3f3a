// The activation of a feed-forward layer: a kernel includes it by "@use activation" and calls activate(x). ACTIVATION is a
// code of src/tensor/activation.ts; as an override, it leaves only one branch in the pipeline. NaN in, NaN out (where the
// driver computes with NaN).
// @use math
override ACTIVATION: u32 = 0;

fn activate(x: f32) -> f32 {
  switch ACTIVATION {
    case 1u: {
      return gelu(x);
    }
    case 2u: {
      return gelu_tanh(x);
    }
    case 3u: {
      return select(x, 0.0, x < 0.0); // max(x, 0) would turn NaN into 0
    }
    case 4u: {
      return silu(x);
    }
    case 5u: {
      return x * sigmoid(1.702 * x);
    }
    default: {
      return x;
    }
  }
}
