// y = activate(x Wᵀ + bias) for software adapters with subgroups. There a load is a gather, lane by lane, even of one address;
// a shuffle is one instruction. So each lane loads a group of a different row of x, and the lanes broadcast them by shuffles.
//
// x: f32[M, K]  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]
// A workgroup is one subgroup of SG lanes. It computes TM rows, each lane TN / FACTORS columns, SG apart. A larger tile saves
// loads, but takes longer to compile; beyond 64 sums Mesa does not unroll the loops, and keeps the arrays in memory.
// Dispatch: ceil(M / TM) · ceil(FACTORS·N / (TN·SG)), folded, down the rows first, so that neighbours share W in the cache.
// Needs: subgroups of exactly SG lanes.
enable subgroups;
// @use matmul
// @use input = input_vec4
// @use weight = weight_f32
override SG: u32 = 8;
override TM: u32 = 16; // at most 16
override TN: u32 = 4; // at most 4, and a multiple of FACTORS
// Loads of x for TM rows, one row a lane. An override, because Mesa does not determine the trip count of r * SG < TM.
override LOADS: u32 = (TM + SG - 1u) / SG;

@compute @workgroup_size(SG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let tiles_down = (params.M + TM - 1u) / TM;
  let tile = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let row0 = (tile % tiles_down) * TM;
  let column0 = (tile / tiles_down) * (TN / FACTORS) * SG + lane;
  let K4 = groups_of_four();

  // One load takes the same group of SG rows of x, one row a lane.
  var rows: array<u32, 16>;
  for (var r = 0u; r < LOADS; r++) {
    rows[r] = input_of(row0 + r * SG + lane);
  }
  var columns: array<u32, 4>;
  for (var n = 0u; n < TN; n++) {
    columns[n] = row_of(column0 + n / FACTORS * SG, n % FACTORS);
  }
  var scales: array<vec2<f32>, 4>; // of the current blocks, if the weight is quantized
  var sums: array<array<f32, 4>, 16>;
  for (var k0 = 0u; k0 < K4; k0 += RUN) {
    var run = array<array<f32, 4>, 16>(); // initialized: see docs/kernels.md
    let end = min(k0 + RUN, K4);
    for (var k = k0; k < end; k++) {
      if (BLOCK > 1u && k % (WORD * BLOCK) == 0u) {
        for (var n = 0u; n < TN; n++) {
          scales[n] = block_scale(columns[n], k / (WORD * BLOCK), K4);
        }
      }
      var a: array<vec4<f32>, 16>;
      for (var r = 0u; r < LOADS; r++) {
        a[r] = load_input(rows[r], k);
      }
      var w: array<vec4<f32>, 4>;
      for (var n = 0u; n < TN; n++) {
        w[n] = load_dequantized(scales[n], columns[n], k, K4);
      }
      for (var m = 0u; m < TM; m++) {
        let shared_by_all = subgroupShuffle(a[m / SG], m % SG);
        for (var n = 0u; n < TN; n++) {
          run[m][n] += dot(shared_by_all, w[n]);
        }
      }
    }
    for (var m = 0u; m < TM; m++) {
      for (var n = 0u; n < TN; n++) {
        sums[m][n] += run[m][n];
      }
    }
  }

  // The bias is added where the sums are read: another loop that writes them makes Mesa take 7 times as long to compile.
  var biases: array<f32, 4>;
  for (var n = 0u; n < TN; n++) {
    biases[n] = bias_of(column0 + n / FACTORS * SG, n % FACTORS);
  }
  for (var m = 0u; m < TM; m++) {
    for (var n = 0u; n < TN; n += FACTORS) {
      let last = n + FACTORS - 1u;
      store(row0 + m, column0 + n / FACTORS * SG, sums[m][n] + biases[n], sums[m][last] + biases[last]);
    }
  }
}
