// A product of the RMS norm of x, x / sqrt(mean(x²) + EPS) * gain, for few rows of a length divisible by four. x is multiplied by
// the gain as it is loaded; the root is known when all of x has been, and divides the sums. Each workgroup computes it again:
// that takes less time than a launch for the norm.
// gain: f32[K]
// @use reduce = reduce_tree
override EPS: f32 = 1e-6;
const IS_NORMED = true;

@group(0) @binding(7) var<storage, read> gain: array<vec4<f32>>;

fn gain_of(group: u32) -> vec4<f32> {
  return gain[min(group, params.K / 4u - 1u)];
}

fn norm_of(lane: u32, squares: f32) -> f32 {
  return 1.0 / sqrt(sum_over_threads(lane, squares) / f32(params.K) + EPS);
}
