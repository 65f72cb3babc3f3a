// y = activate(x Wᵀ + b) for GPUs whose subgroups multiply matrices of 8 x 8 f32 by one instruction: tiles of x and W are
// staged in shared memory, from where subgroups load them as such matrices.
//
// x: f32[M, K]  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]
// A workgroup computes DOWN by ACROSS parts of 32 rows by 32 sums, of 32 / FACTORS columns of y, walking along K by BK. A
// subgroup has a part: 4 x 4 matrices of sums. Subgroups may be of any size: if they are more than the parts, the rest only
// help in loading, and if they are fewer, the parts take turns. Sums leave by way of W's tile, eight rows of every part at a
// time: of long rows every LONG groups, as runs that are added up behind it (see RUN in parts/matmul.wgsl).
// Dispatch: ceil(M / (32·DOWN)) · ceil(FACTORS·N / (32·ACROSS)), folded; tiles below each other are neighbours and share W.
// Needs: subgroups; with matrix_subgroup, instructions for f32 matrices of 8 x 8 x 8 and WG a multiple of the largest subgroup's
// size, as 128 always is; DOWN at most 2; 128·(BK + 4)·(DOWN + ACROSS) bytes of shared memory, 10 KiB as it stands.
enable subgroups;
requires subgroup_id;
// @use matmul
// @use input = input_vec4
// @use weight = weight_f32
// @use matrix = matrix_subgroup
override WG: u32 = 128;
override DOWN: u32 = 2;
override ACROSS: u32 = 2;
const PART = 32u;
const SIDE = 8u; // of a matrix
const MATRICES = PART / SIDE; // down a part, and across
const BK = 16u;
const LONG = 512u; // groups of four, a multiple of BK / 4; each run of them costs eight barriers
const MOST = 64u; // sums of eight rows of a part, for each of at least four threads of a subgroup
const STRIDE = BK + 4u; // more than needed: it spreads the rows over the memory's banks

var<workgroup> x_tile: array<f32, DOWN * PART * STRIDE>;
var<workgroup> weight_tile: array<f32, ACROSS * PART * STRIDE>; // in the end sums: f32[part, 8, 32]

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(num_subgroups) subgroups: u32,
) {
  let BM = DOWN * PART;
  let BN = ACROSS * PART;
  let tiles_down = (params.M + BM - 1u) / BM;
  let tile = group.x + group.y * groups.x;
  let row0 = (tile % tiles_down) * BM;
  let column0 = (tile / tiles_down) * BN / FACTORS;
  if (column0 >= params.N) {
    return;
  }
  let K4 = groups_of_four();

  for (var first = 0u; first < DOWN * ACROSS; first += subgroups) {
    let end = min(first + subgroups, DOWN * ACROSS); // of the parts whose turn it is
    let part = first + subgroup;
    let x_at = (part % DOWN) * PART * STRIDE;
    let weight_at = (part / DOWN) * PART * STRIDE;
    var before = array<array<f32, MOST>, MATRICES>(); // of the runs before, what this thread stores; written out: see README
    for (var start = 0u; start < K4; start += LONG) {
      var sums: array<array<Sum, MATRICES>, MATRICES>;
      for (var m = 0u; m < MATRICES; m++) {
        for (var n = 0u; n < MATRICES; n++) {
          sums[m][n] = Sum();
        }
      }

      for (var k0 = start; k0 < min(start + LONG, K4); k0 += BK / 4u) {
        for (var i = lane; i < BM * BK / 4u; i += WG) {
          let k = i % (BK / 4u);
          let numbers = load_input(input_of(row0 + i / (BK / 4u)), k0 + k);
          for (var c = 0u; c < 4u; c++) {
            x_tile[i / (BK / 4u) * STRIDE + 4u * k + c] = numbers[c];
          }
        }
        for (var i = lane; i < BN * BK / 4u; i += WG) {
          let k = i % (BK / 4u);
          let n = i / (BK / 4u);
          let row = row_of(column0 + n / FACTORS, n % FACTORS);
          let numbers = load_weight(row, min(k0 + k, K4 - 1u), K4); // meets zeros behind K4
          for (var c = 0u; c < 4u; c++) {
            weight_tile[n * STRIDE + 4u * k + c] = numbers[c];
          }
        }
        workgroupBarrier();
        if (part < end) {
          for (var k = 0u; k < BK; k += SIDE) {
            var w: array<Right, MATRICES>;
            for (var n = 0u; n < MATRICES; n++) {
              w[n] = load_right(weight_at + n * SIDE * STRIDE + k);
            }
            for (var m = 0u; m < MATRICES; m++) {
              let a = load_left(x_at + m * SIDE * STRIDE + k);
              for (var n = 0u; n < MATRICES; n++) {
                sums[m][n] = multiply_add(a, w[n], sums[m][n]);
              }
            }
          }
        }
        workgroupBarrier(); // before the next tile overwrites this one
      }

      for (var m = 0u; m < MATRICES; m++) {
        if (part < end) {
          for (var n = 0u; n < MATRICES; n++) {
            store_sum(part * SIDE * PART + n * SIDE, sums[m][n]);
          }
        }
        workgroupBarrier();
        var at = 0u;
        for (var i = first * SIDE * PART + lane * FACTORS; i < end * SIDE * PART; i += WG * FACTORS) {
          let first_sum = before[m][at] + weight_tile[i];
          let last_sum = before[m][at + FACTORS - 1u] + weight_tile[i + FACTORS - 1u];
          if (start + LONG < K4) {
            before[m][at] = first_sum;
            before[m][at + FACTORS - 1u] = last_sum;
          } else {
            let p = i / (SIDE * PART);
            let row = row0 + (p % DOWN) * PART + m * SIDE + i / PART % SIDE;
            let column = column0 + ((p / DOWN) * PART + i % PART) / FACTORS;
            store(row, column, first_sum + bias_of(column, 0u), last_sum + bias_of(column, FACTORS - 1u));
          }
          at += FACTORS;
        }
        workgroupBarrier();
      }
    }
  }
}
