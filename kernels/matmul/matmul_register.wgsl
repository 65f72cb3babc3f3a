// y = activate(x Wᵀ + bias) by register tiles, for software adapters without subgroups. There shared memory is ordinary memory
// and a barrier splits the loop around it, so neither is used.
//
// x: f32[M, K]  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]
// An invocation computes TM adjacent rows by TN / FACTORS columns, WG apart, with its sums in registers.
// Dispatch: ceil(M / TM) · ceil(FACTORS·N / (TN·WG)), folded, down the rows first, so that neighbours share W in the cache.
// Needs: nothing.
// @use matmul
// @use input = input_vec4
// @use weight = weight_f32
override WG: u32 = 8;
override TM: u32 = 8; // at most 8
const TN = 4u;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let tiles_down = (params.M + TM - 1u) / TM;
  let tile = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let row0 = (tile % tiles_down) * TM;
  let column0 = (tile / tiles_down) * (TN / FACTORS) * WG + lane;
  let K4 = groups_of_four();

  var sums: array<array<f32, TN>, 8>;
  var rows: array<u32, 8>;
  for (var m = 0u; m < TM; m++) {
    rows[m] = input_of(row0 + m);
  }
  for (var k0 = 0u; k0 < K4; k0 += RUN) {
    var run = array<array<f32, TN>, 8>(); // initialized: see docs/kernels.md
    let end = min(k0 + RUN, K4);
    for (var k = k0; k < end; k++) {
      var w: array<vec4<f32>, TN>;
      for (var n = 0u; n < TN; n++) {
        w[n] = load_weight(row_of(column0 + n / FACTORS * WG, n % FACTORS), k, K4);
      }
      for (var m = 0u; m < TM; m++) {
        let a = load_input(rows[m], k);
        for (var n = 0u; n < TN; n++) {
          run[m][n] += dot(a, w[n]);
        }
      }
    }
    for (var m = 0u; m < TM; m++) {
      for (var n = 0u; n < TN; n++) {
        sums[m][n] += run[m][n];
      }
    }
  }

  var biases: array<f32, TN>;
  for (var n = 0u; n < TN; n++) {
    biases[n] = bias_of(column0 + n / FACTORS * WG, n % FACTORS);
  }
  for (var m = 0u; m < TM; m++) {
    for (var n = 0u; n < TN; n += FACTORS) {
      let last = n + FACTORS - 1u;
      store(row0 + m, column0 + n / FACTORS * WG, sums[m][n] + biases[n], sums[m][last] + biases[last]);
    }
  }
}
