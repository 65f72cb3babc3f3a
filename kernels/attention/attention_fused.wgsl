// y[b, t, h] = softmaxₛ(scale · q[b, t, h]·k[b, s, h'] + bias[b, h, t, s]) v[b, s, h'] over the keys that query t sees, in one
// pass over them, for GPUs. A query that sees no key gets zeros.
//
// q: f32[B, T, H, d]  k, v: f32[B, S, Hkv, d], all strided  mask: u32[B, S], 1 = visible  past: u32[1]
// bias: f32[B, H, T, S], strided  ->  y: f32[B, T, H, d]
// A workgroup takes BT queries of one head and walks along the keys in tiles of BS. Of each query it keeps the largest score
// so far, the sum of e^(score - largest) and the sum of the values so weighted; when a tile brings a larger score, the sums
// shrink by e^(old - new). A tile's numbers are added up by themselves first, which keeps digits. For the scores a thread takes one key and TT queries; for the values, four numbers of a head (of
// which D4 = ceil(d / 4) make a head) and every (WG / D4)-th query, so that each key and each value is loaded for several.
// Dispatch: B · H · ceil(T / BT), folded. Needs: 4·(BT·(4·D4 + BS + 3)) bytes of shared memory, d at most 4·WG.
// Source: Milakov and Gimelshein 2018, Online normalizer calculation for softmax; Dao et al. 2022, FlashAttention.
// @use attention
// @use heads = heads_vec4
// @use math
override WG: u32 = 64;
override TT: u32 = 4; // at most 4
override BS: u32 = 32; // divides WG
override BT: u32 = 8; // TT · WG / BS, at most 8
override D4: u32 = 16;
const LOWEST = -3.4028234e38;

@group(0) @binding(3) var<storage, read> mask: array<u32>;
@group(0) @binding(4) var<storage, read> past: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;

var<workgroup> q_tile: array<vec4<f32>, BT * D4>;
var<workgroup> scores: array<f32, BT * BS>; // then e^(score - largest)
var<workgroup> largest: array<f32, BT>;
var<workgroup> shrink: array<f32, BT>;
var<workgroup> total: array<f32, BT>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = group.x + group.y * groups.x;
  let tiles = (params.T + BT - 1u) / BT;
  let t0 = (i % tiles) * BT;
  let h = (i / tiles) % params.H;
  let b = i / (tiles * params.H);
  if (b >= params.B) {
    return;
  }
  let t_last = min(t0 + BT, params.T) - 1u;

  for (var j = lane; j < BT * D4; j += WG) {
    q_tile[j] = load_q(q_start(b, min(t0 + j / D4, t_last), h), j % D4) * params.scale;
  }
  if (lane < BT) {
    largest[lane] = LOWEST;
    total[lane] = 0.0;
  }
  workgroupBarrier();

  // Of the scores, this thread's key and first query; of the values, its four numbers and its queries.
  let key = lane % BS;
  let row0 = lane / BS;
  let rows_apart = WG / BS;
  let chunk = lane % D4;
  let value_row0 = lane / D4;
  let value_rows_apart = WG / D4;
  let has_values = value_row0 < value_rows_apart;

  var sums: array<vec4<f32>, 8>;
  let end = key_end(t_last);
  // Loops count to what the compiler does not know (d, s_end): some unroll all they can, and take half a minute.
  for (var s0 = 0u; s0 < end; s0 += BS) {
    let s = s0 + key;
    let s_end = min(s0 + BS, end);
    let k0 = k_start(b, min(s, end - 1u), h);
    var score = array<f32, 4>(); // written out: see README
    for (var c = 0u; 4u * c < params.d; c++) {
      let numbers = load_k(k0, c);
      for (var r = 0u; r < TT; r++) {
        score[r] += dot(q_tile[(row0 + r * rows_apart) * D4 + c], numbers);
      }
    }
    for (var r = 0u; r < TT; r++) {
      let row = row0 + r * rows_apart;
      let sees = s < end && is_visible(b, t0 + row, s);
      if (sees && params.has_bias != 0u) {
        score[r] += bias[bias_place(b, min(t0 + row, t_last), s, h)];
      }
      scores[row * BS + key] = select(LOWEST, score[r], sees);
    }
    workgroupBarrier();
    if (lane < BT) {
      var new_largest = largest[lane];
      for (var j = s0; j < s_end; j++) {
        new_largest = max(new_largest, scores[lane * BS + j - s0]);
      }
      shrink[lane] = exp_accurate(largest[lane] - new_largest);
      largest[lane] = new_largest;
    }
    workgroupBarrier();
    for (var r = 0u; r < TT; r++) {
      let row = row0 + r * rows_apart;
      let at = row * BS + key;
      scores[at] = select(exp_accurate(scores[at] - largest[row]), 0.0, scores[at] == LOWEST);
    }
    workgroupBarrier();
    if (lane < BT) {
      var sum = 0.0;
      for (var j = s0; j < s_end; j++) {
        sum += scores[lane * BS + j - s0];
      }
      total[lane] = total[lane] * shrink[lane] + sum;
    }
    if (has_values) {
      var of_tile = array<vec4<f32>, 8>(); // written out: see README
      for (var j = s0; j < s_end; j++) {
        let numbers = load_v(v_start(b, j, h), chunk);
        for (var r = 0u; r < 8u; r++) {
          let row = value_row0 + r * value_rows_apart;
          if (row < BT) {
            of_tile[r] += scores[row * BS + j - s0] * numbers;
          }
        }
      }
      for (var r = 0u; r < 8u; r++) {
        let row = value_row0 + r * value_rows_apart;
        if (row < BT) {
          sums[r] = sums[r] * shrink[row] + of_tile[r];
        }
      }
    }
    workgroupBarrier(); // before the next tile overwrites the scores
  }

  if (has_values) {
    for (var r = 0u; r < 8u; r++) {
      let row = value_row0 + r * value_rows_apart;
      if (row < BT && t0 + row < params.T) {
        let numbers = select(sums[r] / total[row], vec4<f32>(), total[row] == 0.0);
        store_y(((b * params.T + t0 + row) * params.H + h) * params.d, chunk, numbers);
      }
    }
  }
}
