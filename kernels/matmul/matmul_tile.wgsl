// y = activate(x Wᵀ + bias) for GPUs: tiles of x and W are staged in shared memory, each number loaded once a workgroup.
//
// x: f32[M, K]  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]
// A workgroup of WX·WY threads computes TM·WY rows by TN·WX sums, of TN·WX / FACTORS columns of y, walking along K by BK4
// groups of four; a thread TM rows by TN sums. Its rows lie WY and its columns WX apart, so that neighbours read neighbours.
// Dispatch: ceil(M / (TM·WY)) · ceil(FACTORS·N / (TN·WX)), folded; tiles below each other are neighbours and share W in the cache.
// Needs: 16·(BK4 + 1)·(TM·WY + TN·WX) bytes of shared memory; 10 KiB as it stands.
// @use matmul
override WX: u32 = 16;
override WY: u32 = 16;
override BK4: u32 = 4;
const TM = 4u;
const TN = 4u;

// One group more than needed in a row: it spreads the rows over the memory's banks.
var<workgroup> x_tile: array<vec4<f32>, TM * WY * (BK4 + 1u)>;
var<workgroup> weight_tile: array<vec4<f32>, TN * WX * (BK4 + 1u)>;

@compute @workgroup_size(WX, WY)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let BM = TM * WY;
  let BN = TN * WX;
  let tiles_down = (params.M + BM - 1u) / BM;
  let tile = group.x + group.y * groups.x;
  let row0 = (tile % tiles_down) * BM;
  let column0 = (tile / tiles_down) * BN / FACTORS;
  if (column0 >= params.N) {
    return;
  }
  let K4 = groups_of_four();

  var sums: array<array<f32, TN>, TM>;
  var run: array<array<f32, TN>, TM>;
  for (var k0 = 0u; k0 < K4; k0 += BK4) {
    for (var i = lane; i < BM * BK4; i += WX * WY) {
      let k = k0 + i % BK4;
      x_tile[(i / BK4) * (BK4 + 1u) + i % BK4] = load_input(input_of(row0 + i / BK4), k);
    }
    for (var i = lane; i < BN * BK4; i += WX * WY) {
      let n = i / BK4 / WX;
      let row = row_of(column0 + i / BK4 % WX + n / FACTORS * WX, n % FACTORS);
      let k = k0 + i % BK4;
      weight_tile[(i / BK4) * (BK4 + 1u) + i % BK4] = load_weight(row, min(k, K4 - 1u), K4); // meets zeros behind K4
    }
    workgroupBarrier();
    for (var k = 0u; k < BK4; k++) {
      var w: array<vec4<f32>, TN>;
      for (var n = 0u; n < TN; n++) {
        w[n] = weight_tile[(local.x + n * WX) * (BK4 + 1u) + k];
      }
      for (var m = 0u; m < TM; m++) {
        let a = x_tile[(local.y + m * WY) * (BK4 + 1u) + k];
        for (var n = 0u; n < TN; n++) {
          run[m][n] += dot(a, w[n]);
        }
      }
    }
    if ((k0 + BK4) % RUN == 0u || k0 + BK4 >= K4) {
      for (var m = 0u; m < TM; m++) {
        for (var n = 0u; n < TN; n++) {
          sums[m][n] += run[m][n];
          run[m][n] = 0.0;
        }
      }
    }
    workgroupBarrier(); // before the next tile overwrites this one
  }

  var biases: array<f32, TN>;
  for (var n = 0u; n < TN; n++) {
    biases[n] = bias_of(column0 + local.x + n / FACTORS * WX, n % FACTORS);
  }
  for (var m = 0u; m < TM; m++) {
    for (var n = 0u; n < TN; n += FACTORS) {
      let column = column0 + local.x + n / FACTORS * WX;
      let last = n + FACTORS - 1u;
      store(row0 + local.y + m * WY, column, sums[m][n] + biases[n], sums[m][last] + biases[last]);
    }
  }
}
