// y[m, n] = Σₖ x[m, k] W[n, k] + bias[n], as torch.nn.Linear: the reference kernel, to read first. The other matmul_* and
// matvec_* kernels compute the same faster, with weights of every dtype and an epilogue. Tests compare them with this one.
//
// x: f32[M, K]  weight: f32[N, K]  bias: f32[N]  ->  y: f32[M, N]
// One invocation an element of y.
// Dispatch: [ceil(N / 8), ceil(M / 8), 1]. Needs: nothing.

struct Params {
  M: u32,
  N: u32,
  K: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let n = id.x;
  let m = id.y;
  if (m >= params.M || n >= params.N) {
    return;
  }
  var sum = 0.0;
  for (var k = 0u; k < params.K; k++) {
    sum += x[m * params.K + k] * weight[n * params.K + k];
  }
  y[m * params.N + n] = sum + bias[n];
}
