// y = activate(x Wᵀ + bias) by subgroup matrices (tensor cores, simdgroup matrices), f32, or f16 with f32 sums. Tiles of x and W
// are staged in shared memory, from where subgroups load them as matrices.
//
// x: f32[M, K]  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]
// A workgroup computes DOWN by ACROSS subtiles of 32 rows by 32 sums (32 / FACTORS columns of y), in steps of BK along K. One
// subgroup accumulates one subtile. Subgroups may have any size: more subgroups than subtiles only help to stage; fewer take
// the subtiles in turn. Sums are stored through shared memory, FLUSH of every subtile at a time. Long rows are summed in runs of
// LONG groups, then the runs are added (see RUN in parts/matmul.wgsl).
// Dispatch: ceil(M / (32·DOWN)) · ceil(FACTORS·N / (32·ACROSS)), folded, down the rows first, so that neighbours share W.
// Needs: subgroups; with matrix_subgroup, subgroup matrices, and WG a multiple of the largest subgroup size, as 128 always is;
// DOWN at most 2; shared memory: 2.5·(DOWN + ACROSS) KiB, and with f16 DOWN·ACROSS KiB more.
enable subgroups;
requires subgroup_id;
// @use matmul
// @use input = input_vec4
// @use weight = weight_f32
// @use matrix = matrix_subgroup
override WG: u32 = 128;
override DOWN: u32 = 2;
override ACROSS: u32 = 2;
const SUBTILE = 32u;
const MATRICES_DOWN = SUBTILE / M_SIDE; // of a subtile
const MATRICES_ACROSS = SUBTILE / N_SIDE;
const LONG = 512u; // groups of a run, a multiple of BK / 4; a run costs eight barriers
const FLUSH = 256u; // sums of a subtile stored at a time: M_SIDE rows of WIDE
const WIDE = FLUSH / M_SIDE;
const MOST = FLUSH / 4u; // sums a thread stores at a time, of subgroups of at least four
const FLUSHES = SUBTILE * SUBTILE / FLUSH;

var<workgroup> x_tile: array<Number, DOWN * SUBTILE * STRIDE>;
var<workgroup> weight_tile: array<Number, ACROSS * SUBTILE * STRIDE>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) subgroup: u32,
  @builtin(num_subgroups) subgroups: u32,
) {
  let BM = DOWN * SUBTILE;
  let BN = ACROSS * SUBTILE;
  let tiles_down = (params.M + BM - 1u) / BM;
  let tile = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let row0 = (tile % tiles_down) * BM;
  let column0 = (tile / tiles_down) * BN / FACTORS;
  if (column0 >= params.N) {
    return;
  }
  let K4 = groups_of_four();

  for (var first = 0u; first < DOWN * ACROSS; first += subgroups) {
    let end = min(first + subgroups, DOWN * ACROSS); // of this turn's subtiles
    let subtile = first + subgroup;
    let x_at = (subtile % DOWN) * SUBTILE * STRIDE;
    let weight_at = (subtile / DOWN) * SUBTILE * STRIDE;
    var before = array<array<f32, MOST>, FLUSHES>(); // this thread's sums of the runs before; initialized: see docs/kernels.md
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
          // Beyond K4 the last group is loaded again; it is multiplied by zeros of x.
          let numbers = scaled(load_weight(row, min(k0 + k, K4 - 1u), K4), weight_scale_of(row));
          for (var c = 0u; c < 4u; c++) {
            weight_tile[n * STRIDE + 4u * k + c] = Number(numbers[c]);
          }
        }
        workgroupBarrier();
        if (subtile < end) {
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

      for (var flush = 0u; flush < FLUSHES; flush++) {
        let first_row = flush / (SUBTILE / WIDE) * M_SIDE; // of the sums stored now
        let first_column = flush % (SUBTILE / WIDE) * WIDE;
        if (subtile < end) {
          for (var n = 0u; n < WIDE / N_SIDE; n++) {
            store_sum(subtile * FLUSH + n * N_SIDE, sums[first_row / M_SIDE][first_column / N_SIDE + n]);
          }
        }
        workgroupBarrier();
        var at = 0u;
        for (var i = first * FLUSH + lane * FACTORS; i < end * FLUSH; i += WG * FACTORS) {
          let first_sum = before[flush][at] + sum_at(i);
          let last_sum = before[flush][at + FACTORS - 1u] + sum_at(i + FACTORS - 1u);
          if (start + LONG < K4) {
            before[flush][at] = first_sum;
            before[flush][at + FACTORS - 1u] = last_sum;
          } else {
            let p = i / FLUSH;
            let row = row0 + (p % DOWN) * SUBTILE + first_row + i % FLUSH / WIDE;
            let column = column0 + ((p / DOWN) * SUBTILE + first_column + i % WIDE) / FACTORS;
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
