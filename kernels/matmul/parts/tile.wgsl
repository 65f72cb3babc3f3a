// The product of one workgroup: tiles of x and W are staged in shared memory, then multiplied from registers. With part matmul;
// for kernels that differ only in the subgroup size they ask for.
// Threads are WX by WY. A thread has TM rows, WY apart, by TN sums, WX apart, so that neighbouring threads read neighbouring
// numbers. Software pipelining: the next tile is loaded before the current one is multiplied, and is unpacked after that, because
// unpacking would wait for the load.
// Split-K: if SPLITS is above 1, a workgroup sums one of SPLITS ranges of K, and y is f32[SPLITS, M, FACTORS, N], which
// matmul_combine adds. This keeps a GPU busy where a product has few tiles.
// All loops but those along K have constant counts, and the range of every index into shared memory can be proven: Tint guards
// and clamps all others.
// @use products = products_f32
override WX: u32 = 32;
override WY: u32 = 8; // at most 8
override TM: u32 = 8; // at most 11
override SPLITS: u32 = 1;
const TN = 4u;
const BK4 = 4u; // groups of four along K
const UNIT = 8u; // groups; splits of K are whole blocks of a quantized weight
override X_LOADS: u32 = (TM * BK4 + WX - 1u) / WX; // groups of x and words of W that a thread loads of a tile
override WEIGHT_LOADS: u32 = TN * BK4 / WORD / WY;

// All threads along WX read the same group of x. Rows of W are padded by a group against bank conflicts.
var<workgroup> x_tile: array<Staged, TM * WY * BK4>;
var<workgroup> weight_tile: array<Staged, TN * WX * (BK4 + 1u)>;

fn multiply_tiles(group: u32, local: vec2<u32>, lane: u32) {
  let local_x = local.x % WX; // unchanged: proves the range to Tint
  let local_y = local.y % WY;
  let BM = TM * WY;
  let BN = TN * WX;
  let tiles_down = (params.M + BM - 1u) / BM;
  let row0 = (group % tiles_down) * BM;
  let split = (group / tiles_down) % SPLITS;
  let column0 = (group / tiles_down / SPLITS) * BN / FACTORS;
  if (column0 >= params.N) {
    return;
  }
  let K4 = groups_of_four();
  let length = (K4 + SPLITS * UNIT - 1u) / (SPLITS * UNIT) * UNIT;
  let start = split * length;
  let end = min(start + length, K4);

  // Neighbouring threads load along K.
  let X_LINES = WX * WY / BK4;
  let x_k = lane % BK4;
  var x_rows: array<u32, 2>;
  var x_next: array<vec4<f32>, 2>;
  var x_scales: array<f32, 2>;
  for (var i = 0u; i < X_LOADS; i++) {
    x_rows[i] = input_of(row0 + lane / BK4 + i * X_LINES);
    x_scales[i] = row_scale_of(row0 + lane / BK4 + i * X_LINES);
    x_next[i] = load_input(x_rows[i], start + x_k);
  }
  let WORDS = BK4 / WORD;
  let WEIGHT_LINES = WX * WY / WORDS;
  let weight_k = lane % WORDS;
  let last_word = (K4 + WORD - 1u) / WORD - 1u; // beyond it the last word is loaded again; x is zero there
  var weight_rows: array<u32, 4>;
  var weight_next: array<Packed, 4>;
  var f16_scales: array<f32, 4>; // of rows of W
  var scales: array<vec2<f32>, 4>; // of the current blocks, if the weight is quantized
  for (var i = 0u; i < WEIGHT_LOADS; i++) {
    let n = lane / WORDS + i * WEIGHT_LINES;
    weight_rows[i] = row_of(column0 + n % WX + n / WX / FACTORS * WX, n / WX % FACTORS);
    f16_scales[i] = weight_scale_of(weight_rows[i]);
    weight_next[i] = load_packed(weight_rows[i], min(start / WORD + weight_k, last_word), K4);
    scales[i] = block_scale(weight_rows[i], min(start / WORD, last_word) / BLOCK, K4);
  }

  var sums: array<array<f32, TN>, 11>;
  for (var run0 = start; run0 < end; run0 += RUN) {
    var run = array<array<f32, TN>, 11>(); // initialized: see docs/kernels.md
    let run_end = min(run0 + RUN, end);
    for (var k0 = run0; k0 < run_end; k0 += BK4) {
      for (var i = 0u; i < X_LOADS; i++) {
        let at = lane + i * WX * WY;
        if (at < BM * BK4) {
          x_tile[at] = stage(scaled(x_next[i], x_scales[i]));
        }
      }
      for (var i = 0u; i < WEIGHT_LOADS; i++) {
        let at = (lane / WORDS + i * WEIGHT_LINES) * (BK4 + 1u) + weight_k * WORD;
        let groups = unpack(weight_next[i]);
        for (var j = 0u; j < WORD; j++) {
          weight_tile[at + j] = stage(scaled(dequantize(scales[i], groups[j]), f16_scales[i]));
        }
      }
      workgroupBarrier();
      let k1 = k0 + BK4;
      for (var i = 0u; i < X_LOADS; i++) {
        x_next[i] = load_input(x_rows[i], k1 + x_k);
      }
      for (var i = 0u; i < WEIGHT_LOADS; i++) {
        weight_next[i] = load_packed(weight_rows[i], min(k1 / WORD + weight_k, last_word), K4);
      }
      if (BLOCK > 1u && k1 % (WORD * BLOCK) == 0u) {
        for (var i = 0u; i < WEIGHT_LOADS; i++) {
          scales[i] = block_scale(weight_rows[i], min(k1 / WORD, last_word) / BLOCK, K4);
        }
      }
      for (var k = 0u; k < BK4; k++) {
        var w: array<Staged, TN>;
        for (var n = 0u; n < TN; n++) {
          w[n] = weight_tile[(local_x + n * WX) * (BK4 + 1u) + k];
        }
        for (var m = 0u; m < TM; m++) {
          let a = x_tile[(local_y + m * WY) * BK4 + k];
          for (var n = 0u; n < TN; n++) {
            run[m][n] = add_products(a, w[n], run[m][n]);
          }
        }
      }
      workgroupBarrier(); // before the tile is overwritten
    }
    for (var m = 0u; m < TM; m++) {
      for (var n = 0u; n < TN; n++) {
        sums[m][n] += run[m][n];
      }
    }
  }

  let row = row0 + local_y;
  let column = column0 + local_x;
  for (var n = 0u; n < TN; n++) {
    let weight_scale = weight_scale_of(row_of(column + n / FACTORS * WX, n % FACTORS));
    for (var m = 0u; m < TM; m++) {
      sums[m][n] = unscaled(unscaled(sums[m][n], row_scale_of(row + m * WY)), weight_scale);
    }
  }
  if (SPLITS > 1u) {
    for (var m = 0u; m < TM; m++) {
      let at = (split * params.M + row + m * WY) * FACTORS;
      for (var n = 0u; n < TN; n++) {
        if (row + m * WY < params.M && column + n / FACTORS * WX < params.N) {
          y[(at + n % FACTORS) * params.N + column + n / FACTORS * WX] = sums[m][n];
        }
      }
    }
    return;
  }
  // All operands of the epilogue are loaded before the first is used, so that their latencies overlap.
  var biases: array<f32, TN>;
  var operands: array<array<EpilogueOperands, TN>, 11>;
  for (var n = 0u; n < TN; n++) {
    biases[n] = bias_of(column + n / FACTORS * WX, n % FACTORS);
  }
  if (has_epilogue()) {
    for (var m = 0u; m < TM; m++) {
      for (var n = 0u; n < TN; n += FACTORS) {
        let inside = min(column + n / FACTORS * WX, params.N - 1u);
        operands[m][n] = load_epilogue(min(row + m * WY, params.M - 1u), params.column0 + inside);
      }
    }
  }
  for (var m = 0u; m < TM; m++) {
    for (var n = 0u; n < TN; n += FACTORS) {
      let last = n + FACTORS - 1u;
      let sum = vec2<f32>(sums[m][n] + biases[n], sums[m][last] + biases[last]);
      store_with(operands[m][n], row + m * WY, column + n / FACTORS * WX, sum);
    }
  }
}
