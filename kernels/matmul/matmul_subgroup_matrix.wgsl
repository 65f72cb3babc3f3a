// y = activate(x Wᵀ + b) for GPUs whose subgroups multiply matrices by one instruction, of f32 or of f16 with sums of f32: tiles
// of x and W are staged in shared memory, from where subgroups load them as such matrices.
//
// x: f32[M, K]  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]
// A workgroup computes DOWN by ACROSS parts of 32 rows by 32 sums, of 32 / FACTORS columns of y, walking along K by BK. A
// subgroup has a part, as matrices of sums. Subgroups may be of any size: if they are more than the parts, the rest only
// help in loading, and if they are fewer, the parts take turns. Sums leave by way of shared memory, LEAVING of every part at a
// time: of long rows every LONG groups, as runs that are added up behind it (see RUN in parts/matmul.wgsl).
// Dispatch: ceil(M / (32·DOWN)) · ceil(FACTORS·N / (32·ACROSS)), folded; tiles below each other are neighbours and share W.
// Needs: subgroups; with matrix_subgroup, instructions for such matrices and WG a multiple of the largest subgroup's size, as 128
// always is; DOWN at most 2; shared memory: 2.5·(DOWN + ACROSS) KiB, and with f16 DOWN·ACROSS KiB more.
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
const MATRICES_DOWN = PART / M_SIDE; // of a part
const MATRICES_ACROSS = PART / N_SIDE;
const LONG = 512u; // groups of four, a multiple of BK / 4; each run of them costs eight barriers
const LEAVING = 256u; // sums of a part that leave at a time: the rows of a matrix, WIDE of each
const WIDE = LEAVING / M_SIDE;
const MOST = LEAVING / 4u; // for each of at least four threads of a subgroup
const TIMES = PART * PART / LEAVING;

var<workgroup> x_tile: array<Number, DOWN * PART * STRIDE>;
var<workgroup> weight_tile: array<Number, ACROSS * PART * STRIDE>;

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
    var before = array<array<f32, MOST>, TIMES>(); // of the runs before, what this thread stores; written out: see README
    for (var start = 0u; start < K4; start += LONG) {
      var sums: array<array<Sum, MATRICES_ACROSS>, MATRICES_DOWN>;
      for (var m = 0u; m < MATRICES_DOWN; m++) {
        for (var n = 0u; n < MATRICES_ACROSS; n++) {
          sums[m][n] = Sum();
        }
      }

      for (var k0 = start; k0 < min(start + LONG, K4); k0 += BK / 4u) {
        for (var i = lane; i < BM * BK / 4u; i += WG) {
          let k = i % (BK / 4u);
          let row = row0 + i / (BK / 4u);
          let numbers = scaled(load_input(input_of(row), k0 + k), row_scale_of(row));
          for (var c = 0u; c < 4u; c++) {
            x_tile[i / (BK / 4u) * STRIDE + 4u * k + c] = Number(numbers[c]);
          }
        }
        for (var i = lane; i < BN * BK / 4u; i += WG) {
          let k = i % (BK / 4u);
          let n = i / (BK / 4u);
          let row = row_of(column0 + n / FACTORS, n % FACTORS);
          // Meets zeros behind K4.
          let numbers = scaled(load_weight(row, min(k0 + k, K4 - 1u), K4), weight_scale_of(row));
          for (var c = 0u; c < 4u; c++) {
            weight_tile[n * STRIDE + 4u * k + c] = Number(numbers[c]);
          }
        }
        workgroupBarrier();
        if (part < end) {
          for (var k = 0u; k < BK; k += K_SIDE) {
            var w: array<Right, MATRICES_ACROSS>;
            for (var n = 0u; n < MATRICES_ACROSS; n++) {
              w[n] = load_right(weight_at + n * N_SIDE * STRIDE + k);
            }
            for (var m = 0u; m < MATRICES_DOWN; m++) {
              let a = load_left(x_at + m * M_SIDE * STRIDE + k);
              for (var n = 0u; n < MATRICES_ACROSS; n++) {
                sums[m][n] = multiply_add(a, w[n], sums[m][n]);
              }
            }
          }
        }
        workgroupBarrier(); // before the next tile overwrites this one
      }

      for (var time = 0u; time < TIMES; time++) {
        let first_row = time / (PART / WIDE) * M_SIDE; // of those that leave
        let first_column = time % (PART / WIDE) * WIDE;
        if (part < end) {
          for (var n = 0u; n < WIDE / N_SIDE; n++) {
            store_sum(part * LEAVING + n * N_SIDE, sums[first_row / M_SIDE][first_column / N_SIDE + n]);
          }
        }
        workgroupBarrier();
        var at = 0u;
        for (var i = first * LEAVING + lane * FACTORS; i < end * LEAVING; i += WG * FACTORS) {
          let first_sum = before[time][at] + sum_at(i);
          let last_sum = before[time][at + FACTORS - 1u] + sum_at(i + FACTORS - 1u);
          if (start + LONG < K4) {
            before[time][at] = first_sum;
            before[time][at + FACTORS - 1u] = last_sum;
          } else {
            let p = i / LEAVING;
            let row = row0 + (p % DOWN) * PART + first_row + i % LEAVING / WIDE;
            let column = column0 + ((p / DOWN) * PART + first_column + i % WIDE) / FACTORS;
            let scale = row_scale_of(row);
            let first_value = unscaled(unscaled(first_sum, scale), weight_scale_of(row_of(column, 0u)));
            let last_value = unscaled(unscaled(last_sum, scale), weight_scale_of(row_of(column, FACTORS - 1u)));
            store(row, column, first_value + bias_of(column, 0u), last_value + bias_of(column, FACTORS - 1u));
          }
          at += FACTORS;
        }
        workgroupBarrier();
      }
    }
  }
}
