// The product of few rows of x with a quantized weight, for one workgroup: a thread takes whole blocks, their codes by loads of 16
// bytes, their scale once. With part matmul; for kernels that differ only in the subgroup size they ask for.
// K is a multiple of 32, a row of W a multiple of 16 bytes.
// LANES threads are along K, WG / LANES along N. A thread has four sums (4 / FACTORS columns of y) for all M rows, over every
// LANES-th block. x is staged in shared memory: threads of neighbouring blocks read it 32 numbers apart, which does not coalesce.
// @use input_vec4
// @use products_f32
// @use blocks = blocks_int4
// @use norm = norm_none
override WG: u32 = 64;
override TM: u32 = 1; // M, at most 8
override LANES: u32 = 64; // from 8 to WG, and at least WG / 9
const ROWS = 4u;
const BLOCK4 = 8u; // groups of four in a block
const STRIDE = BLOCK4 + 1u; // padded against bank conflicts
override LOADS: u32 = LANES * BLOCK4 / WG; // of a row of x; LOADS·TM at most 8

var<workgroup> tile: array<vec4<f32>, TM * LANES * STRIDE>; // of x; at the end, sums

fn multiply_blocks(group: u32, invocation: u32) {
  let lane = invocation % WG; // unchanged: proves its range to Tint
  let first_column = ROWS / FACTORS * (WG / LANES) * group;
  if (first_column >= params.N) {
    return;
  }
  let across = lane % LANES;
  let column0 = first_column + ROWS / FACTORS * (lane / LANES);
  let K4 = groups_of_four();
  let blocks = K4 / BLOCK4;
  var starts: array<u32, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    starts[r] = start_of_row(row_of(column0 + r / FACTORS, r % FACTORS), blocks);
  }

  var sums: array<vec4<f32>, 8>;
  var squares: array<f32, 8>;
  for (var block0 = 0u; block0 < blocks; block0 += LANES) {
    var x_next: array<vec4<f32>, 8>;
    var gains: array<vec4<f32>, 8>;
    for (var i = 0u; i < LOADS; i++) {
      let k = min(block0 * BLOCK4 + lane + i * WG, K4 - 1u);
      gains[i] = gain_of(k);
      for (var m = 0u; m < TM; m++) {
        x_next[m * LOADS + i] = x[m * K4 + k];
      }
    }
    let block = min(block0 + across, blocks - 1u);
    var codes: array<array<vec2<u32>, 2u * LOADS_OF_BLOCK>, ROWS>; // pairs: Mesa unrolls short loops only
    var scales: array<vec2<f32>, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      for (var i = 0u; i < LOADS_OF_BLOCK; i++) {
        let four = load_block(starts[r], block, i);
        codes[r][2u * i] = four.xy;
        codes[r][2u * i + 1u] = four.zw;
      }
      scales[r] = block_scale(starts[r], block, blocks);
    }
    for (var i = 0u; i < LOADS; i++) {
      for (var m = 0u; m < TM; m++) {
        var numbers = x_next[m * LOADS + i];
        if (IS_NORMED) {
          if (block0 * BLOCK4 + lane + i * WG < K4) {
            squares[m] = add_products(numbers, numbers, squares[m]);
          }
          numbers *= gains[i];
        }
        tile[lane / BLOCK4 * STRIDE + lane % BLOCK4 + (m * LANES + i * (WG / BLOCK4)) * STRIDE] = numbers;
      }
    }
    workgroupBarrier();

    if (block0 + across < blocks) {
      var dot_codes = array<vec4<f32>, 8>(); // initialized: see docs/kernels.md
      var sum_x = array<f32, 8>();
      for (var i = 0u; i < 2u * LOADS_OF_BLOCK; i++) {
        for (var word = 0u; word < 2u; word++) {
          var w: array<array<vec4<f32>, WORD>, ROWS>;
          for (var r = 0u; r < ROWS; r++) {
            w[r] = unpack(codes[r][i][word]);
          }
          for (var j = 0u; j < WORD; j++) {
            for (var m = 0u; m < TM; m++) {
              let a = tile[across * STRIDE + m * LANES * STRIDE + (2u * i + word) * WORD + j];
              sum_x[m] += (a.x + a.y) + (a.z + a.w);
              dot_codes[m] = vec4<f32>(
                add_products(a, w[0][j], dot_codes[m].x),
                add_products(a, w[1][j], dot_codes[m].y),
                add_products(a, w[2][j], dot_codes[m].z),
                add_products(a, w[3][j], dot_codes[m].w),
              );
            }
          }
        }
      }
      for (var m = 0u; m < TM; m++) {
        sums[m] += vec4<f32>(
          scale_dot(scales[0], dot_codes[m].x, sum_x[m]),
          scale_dot(scales[1], dot_codes[m].y, sum_x[m]),
          scale_dot(scales[2], dot_codes[m].z, sum_x[m]),
          scale_dot(scales[3], dot_codes[m].w, sum_x[m]),
        );
      }
    }
    workgroupBarrier(); // before the tile is overwritten
  }

  if (IS_NORMED) {
    for (var m = 0u; m < TM; m++) {
      sums[m] *= norm_of(lane, squares[m]);
    }
  }

  // The reduction over LANES, in two steps: eight neighbouring threads, then the LANES / 8 sums that remain.
  for (var m = 0u; m < TM; m++) {
    tile[m * WG + lane] = sums[m];
  }
  workgroupBarrier();
  var eight = vec4<f32>();
  if (lane < TM * WG / 8u) {
    for (var i = 0u; i < 8u; i++) {
      eight += tile[lane * 8u + i];
    }
  }
  workgroupBarrier();
  tile[lane] = eight;
  workgroupBarrier();
  let DOWN = WG / LANES;
  if (lane < TM * DOWN) {
    var sum = vec4<f32>();
    for (var i = 0u; i < LANES / 8u; i++) {
      sum += tile[lane * (LANES / 8u) + i];
    }
    let columns = ROWS / FACTORS;
    for (var n = 0u; n < columns; n++) {
      let column = first_column + lane % DOWN * columns + n;
      let first = sum[n * FACTORS] + bias_of(column, 0u);
      let last = sum[n * FACTORS + FACTORS - 1u] + bias_of(column, FACTORS - 1u);
      store(lane / DOWN, column, first, last);
    }
  }
}
