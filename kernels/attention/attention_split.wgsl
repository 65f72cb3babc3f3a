// o[b, t, h, p] = Σₛ e^(score(s) - largest) v[b, s, h'] over the keys of split p that query t sees, with
// score(s) = scale · q[b, t, h]·k[b, s, h'] + bias[b, h, t, s]: Flash-Decoding, for GPUs. One query, as in decoding, does not fill
// a GPU, so its keys are split among threads, and among workgroups, KEYS each. attention_combine.wgsl combines the splits.
// WHOLE: there is one split, and y[b, t, h] = o / Σₛ e^(score(s) - largest). A query that sees no key gets zeros.
//
// q: f32[B, T, H, d]  k, v: f32[B, S, Hkv, d], all strided  mask: u32[B, S], 1 = visible  past: u32[1]
// bias: f32[B, H, T, S], strided  ->  y: f32[B, T, H, P, d], which is o, and stats: f32[B, T, H, P, 2]: the largest score of a
// split and Σ e^(score - largest). Splits beyond the last key that query t sees are not written. With WHOLE y: f32[B, T, H, d].
// A workgroup takes one split of one head. q·k: LANES neighbouring threads share a key. Weights times values: a thread has four
// numbers of the head and every (WG / D4)-th key. Both coalesce loads. To hide latency, a thread has IN_FLIGHT loads of a key, or
// 2·IN_FLIGHT values, in flight. Keys beyond the last are read as the last and get weight 0.
// Dispatch: B · T · H · P, P = ceil(S / KEYS), folded. Needs: 4·(4·D4 + KEYS·(LANES + 2) + WG) bytes of shared memory,
// WG at most KEYS, d at most 4·WG; subgroups of any size with reduce_subgroups.
// Source: Dao et al. 2023, Flash-Decoding for long-context inference.
// @use attention
// @use heads = heads_vec4
// @use math
// @use reduce = reduce_tree
override WG: u32 = 256;
override KEYS: u32 = 512;
override D4: u32 = 16; // ceil(d / 4)
override WHOLE: u32 = 0;
const LANES = 4u;
const IN_FLIGHT = 4u;
const LOWEST = -3.4028234e38;

@group(0) @binding(3) var<storage, read> mask: array<u32>;
@group(0) @binding(4) var<storage, read> past: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(7) var<storage, read_write> stats: array<vec2<f32>>;

var<workgroup> q_tile: array<vec4<f32>, D4>;
var<workgroup> shares: array<f32, KEYS * LANES>; // partial q·k, then partial sums over the values
var<workgroup> weights: array<f32, KEYS>; // scores, then e^(score - largest)
var<workgroup> v_starts: array<u32, KEYS>; // looked up once: the block table is a load

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let splits = (params.S + KEYS - 1u) / KEYS;
  let split = i % splits;
  let h = (i / splits) % params.H;
  let t = (i / (splits * params.H)) % params.T;
  let b = i / (splits * params.H * params.T);
  let s0 = split * KEYS;
  let s_end = min(s0 + KEYS, key_end(t));
  if (b >= params.B || s0 >= s_end) {
    return;
  }

  let q0 = q_start(b, t, h);
  for (var c = lane; 4u * c < params.d; c += WG) {
    q_tile[c] = load_q(q0, c) * params.scale;
  }
  workgroupBarrier();
  let own = lane % LANES;
  for (var r = 0u; r < KEYS * LANES / WG; r++) {
    if (r * (WG / LANES) >= s_end - s0) {
      break;
    }
    let n = lane / LANES + r * (WG / LANES);
    let s = min(s0 + n, s_end - 1u);
    let k0 = k_start(b, s, h);
    var share = 0.0;
    for (var round = 0u; round < (D4 + IN_FLIGHT * LANES - 1u) / (IN_FLIGHT * LANES); round++) {
      let c0 = own + round * IN_FLIGHT * LANES;
      var of_key: array<vec4<f32>, IN_FLIGHT>;
      for (var j = 0u; j < IN_FLIGHT; j++) {
        of_key[j] = load_k(k0, min(c0 + j * LANES, D4 - 1u));
      }
      for (var j = 0u; j < IN_FLIGHT; j++) {
        let c = c0 + j * LANES;
        let q = select(vec4<f32>(), q_tile[min(c, D4 - 1u)], c < D4);
        let k = of_key[j];
        share = fma(q.w, k.w, fma(q.z, k.z, fma(q.y, k.y, fma(q.x, k.x, share))));
      }
    }
    shares[n * LANES + own] = share;
    if (own == 0u) {
      v_starts[n] = v_start(b, s, h);
    }
  }
  workgroupBarrier();

  var largest = LOWEST;
  for (var s = s0 + lane; s < s_end; s += WG) {
    var score = LOWEST;
    if (is_visible(b, t, s)) {
      score = 0.0;
      for (var n = 0u; n < LANES; n++) {
        score += shares[(s - s0) * LANES + n];
      }
      if (params.has_bias != 0u) {
        score += bias[bias_place(b, t, s, h)];
      }
    }
    weights[s - s0] = score;
    largest = max(largest, score);
  }
  largest = max_over_threads(lane, largest);
  var sum = 0.0;
  for (var s = s0 + lane; s < s_end; s += WG) {
    let score = weights[s - s0];
    let weight = select(exp_accurate(score - largest), 0.0, score == LOWEST);
    weights[s - s0] = weight;
    sum += weight;
  }
  sum = sum_over_threads(lane, sum); // its barriers also make the weights visible

  let chunk = lane % D4;
  let first = lane / D4;
  let apart = WG / D4;
  var numbers = vec4<f32>();
  if (first < apart) {
    for (var n0 = first; n0 < s_end - s0; n0 += 2u * IN_FLIGHT * apart) {
      var values: array<vec4<f32>, 2u * IN_FLIGHT>;
      for (var j = 0u; j < 2u * IN_FLIGHT; j++) {
        values[j] = load_v(v_starts[min(n0 + j * apart, KEYS - 1u)], chunk);
      }
      for (var j = 0u; j < 2u * IN_FLIGHT; j++) {
        let n = n0 + j * apart;
        let weight = select(0.0, weights[min(n, KEYS - 1u)], n < s_end - s0);
        numbers = fma(vec4<f32>(weight), values[j], numbers);
      }
    }
  }
  for (var c = 0u; c < 4u; c++) {
    shares[c * WG + lane] = numbers[c];
  }
  workgroupBarrier();
  if (first == 0u) {
    for (var n = 1u; n < apart; n++) {
      let at = n * D4 + chunk;
      numbers += vec4<f32>(shares[at], shares[WG + at], shares[2u * WG + at], shares[3u * WG + at]);
    }
    if (WHOLE != 0u) {
      numbers = select(numbers / sum, vec4<f32>(), sum == 0.0);
    }
    store_y(i * params.d, chunk, numbers);
  }
  if (WHOLE == 0u && lane == 0u) {
    stats[i] = vec2<f32>(largest, sum);
  }
}
