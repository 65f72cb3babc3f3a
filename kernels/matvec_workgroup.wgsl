// y = activate(x Wᵀ + bias) for the few rows of x that decoding has, on GPUs: the time is that of reading W once.
//
// x: f32[M, K], M at most 8  weight: [N, K] in f32, f16 or bf16, rows padded to groups of four  bias: f32[N]  ->  y: f32[M, N]
// A workgroup computes four columns of y for all M rows: its threads stride over K, then add their sums up.
// Dispatch: ceil(N / 4), folded. Needs: 16·WG·TM bytes of shared memory.
// @use matmul
override WG: u32 = 256; // a power of two
override TM: u32 = 4; // M as a constant, at most 8, and at most 1024 / WG by default limits

var<workgroup> partial: array<vec4<f32>, WG * TM>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let column0 = 4u * (group.x + group.y * groups.x);
  if (column0 >= params.N) {
    return;
  }
  let K4 = groups_of_four();
  // Where four rows of W begin; behind the last they all are the last, and their sums are thrown away.
  let start = min(column0 + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.N - 1u)) * K4;

  var sums: array<vec4<f32>, 8>;
  for (var k = lane; k < K4; k += WG) {
    let w0 = load_weight(start.x + k);
    let w1 = load_weight(start.y + k);
    let w2 = load_weight(start.z + k);
    let w3 = load_weight(start.w + k);
    for (var m = 0u; m < TM; m++) {
      let a = load_input(m, k);
      sums[m] += vec4<f32>(dot(a, w0), dot(a, w1), dot(a, w2), dot(a, w3));
    }
  }

  for (var m = 0u; m < TM; m++) {
    partial[m * WG + lane] = sums[m];
  }
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      for (var m = 0u; m < params.M; m++) {
        partial[m * WG + lane] += partial[m * WG + lane + half];
      }
    }
    workgroupBarrier();
  }
  if (lane < 4u * TM) {
    let column = column0 + lane % 4u;
    store(lane / 4u, column, partial[(lane / 4u) * WG][lane % 4u] + bias_of(column));
  }
}
