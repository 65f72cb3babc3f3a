// Generated from kernels/**/*.wgsl by `npm run kernels`. Do not edit.
export const KERNELS: Readonly<Record<string, string>> = {
  "attention/attention_combine": `// y[b, t, h] = Σₚ e^(largestₚ - largest) o[b, t, h, p] / Σₚ e^(largestₚ - largest) sumₚ, with largest = maxₚ largestₚ: combines
// the splits p of attention_split.wgsl that have keys which query t sees. A query that sees no key gets zeros.
//
// o: f32[B, T, H, P, d]  stats: f32[B, T, H, P, 2], largestₚ and sumₚ  mask: u32[B, S], not read  past: u32[1]
// -> y: f32[B, T, H, d]
// One invocation an element of y. Each computes the weights e^(largestₚ - largest) of its P splits.
// Dispatch: ceil(B·T·H·d / WG), folded. Needs: nothing.
// @use attention
// @use math
override WG: u32 = 64;
override KEYS: u32 = 512; // as in attention_split.wgsl
const IN_FLIGHT = 4u; // parts whose loads are under way at a time; behind the last one the last is loaded again, with weight 0
const LOWEST = -3.4028234e38;

@group(0) @binding(0) var<storage, read> o: array<f32>;
@group(0) @binding(1) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;
@group(0) @binding(3) var<storage, read> past: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  let c = i % params.d;
  let head = i / params.d; // (b·T + t)·H + h
  let t = (head / params.H) % params.T;
  if (head >= params.B * params.T * params.H) {
    return;
  }
  let first = head * ((params.S + KEYS - 1u) / KEYS);
  let end = first + (key_end(t) + KEYS - 1u) / KEYS;
  var largest = LOWEST;
  for (var p0 = first; p0 < end; p0 += IN_FLIGHT) {
    var scores: array<f32, IN_FLIGHT>;
    for (var j = 0u; j < IN_FLIGHT; j++) {
      scores[j] = stats[min(p0 + j, end - 1u)].x;
    }
    for (var j = 0u; j < IN_FLIGHT; j++) {
      largest = max(largest, scores[j]);
    }
  }
  var total = 0.0;
  var sum = 0.0;
  for (var p0 = first; p0 < end; p0 += IN_FLIGHT) {
    var of_parts: array<vec3<f32>, IN_FLIGHT>;
    for (var j = 0u; j < IN_FLIGHT; j++) {
      let p = min(p0 + j, end - 1u);
      of_parts[j] = vec3<f32>(stats[p], o[p * params.d + c]);
    }
    for (var j = 0u; j < IN_FLIGHT; j++) {
      let part = of_parts[j];
      let weight = select(0.0, exp_accurate(part.x - largest), p0 + j < end);
      total += weight * part.y;
      sum += weight * part.z;
    }
  }
  y[i] = select(sum / total, 0.0, total == 0.0);
}
`,
  "attention/attention_flash": `// y[b, t, h] = softmaxₛ(scale · q[b, t, h]·k[b, s, h'] + bias[b, h, t, s]) v[b, s, h'] over the keys that query t sees, in one
// pass over the keys, for GPUs. A query that sees no key gets zeros.
//
// q: f32[B, T, H, d]  k, v: f32[B, S, Hkv, d], all strided  mask: u32[B, S], 1 = visible  past: u32[1]
// bias: f32[B, H, T, S], strided  ->  y: f32[B, T, H, d]
// FlashAttention: a workgroup takes WG / 4 queries of one head and walks over the keys in tiles; see parts/flash.wgsl.
// Dispatch: B · H · ceil(T / (WG / 4)), folded. Needs: WG·(16·ceil(d / 16) + 136) + 512 bytes of shared memory, d at most 256.
// Source: Milakov and Gimelshein 2018, Online normalizer calculation for softmax; Dao et al. 2022, FlashAttention.
// @use attention
// @use heads = heads_vec4
// @use math
// @use flash

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  attend(workgroup_id.x + workgroup_id.y * num_workgroups.x, lane);
}
`,
  "attention/attention_flash_sized": `// y[b, t, h] = softmaxₛ(scale · q[b, t, h]·k[b, s, h'] + bias[b, h, t, s]) v[b, s, h'] as attention_flash, in subgroups of SG
// threads, for the reason in matmul_tile_sized.
//
// q: f32[B, T, H, d]  k, v: f32[B, S, Hkv, d], all strided  mask: u32[B, S], 1 = visible  past: u32[1]
// bias: f32[B, H, T, S], strided  ->  y: f32[B, T, H, d]
// Dispatch: as attention_flash. Needs: as attention_flash; subgroups of SG threads, and WG a multiple of SG.
enable subgroups;
enable subgroup_size_control;
// @use attention
// @use heads = heads_vec4
// @use math
// @use flash
override SG: u32 = 32;

@compute @subgroup_size(SG) @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  attend(workgroup_id.x + workgroup_id.y * num_workgroups.x, lane);
}
`,
  "attention/attention_scores": `// y[b, h, t, s] = scale · Σᵢ q[b, t, h, i] k[b, s, h', i] + bias[b, h, t, s], or the lowest f32 where query t does not see
// key s, or the edge to it is cut. The first of the three steps of composed attention: scores, softmax, values.
//
// q: f32[B, T, H, d]  kv: f32[B, S, Hkv, d], the keys, both strided  mask: u32[B, S], 1 = visible  past: u32[1]
// bias: f32[B, H, T, S], strided  ->  y: f32[B, H, T, S]
// One invocation a score. The lowest f32, not -∞: WGSL lets a driver assume that there are no infinities.
// Dispatch: ceil(B·H·T·S / WG), folded. Needs: nothing.
// Source: Vaswani et al. 2017, Attention Is All You Need.
// @use attention
// @use kv = kv_f32
// @use edges = edges_all
override WG: u32 = 64;

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;
@group(0) @binding(3) var<storage, read> past: array<u32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  let s = i % params.S;
  let t = (i / params.S) % params.T;
  let h = (i / (params.S * params.T)) % params.H;
  let b = i / (params.S * params.T * params.H);
  if (b >= params.B) {
    return;
  }
  var score = -3.4028234e38;
  if (is_visible(b, t, s) && has_edge(b, t, s, h)) {
    let q0 = q_start(b, t, h);
    let k0 = k_start(b, s, h);
    score = 0.0;
    for (var c = 0u; c < params.d; c++) {
      score += q[q0 + c] * load_kv(k0, c);
    }
    score *= params.scale;
    if (params.has_bias != 0u) {
      score += bias[bias_place(b, t, s, h)];
    }
  }
  y[i] = score;
}
`,
  "attention/attention_split": `// o[b, t, h, p] = Σₛ e^(score(s) - largest) v[b, s, h'] over the keys of split p that query t sees, with
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
`,
  "attention/attention_subgroup": `// y[b, t, h] = softmaxₛ(scale · q[b, t, h]·k[b, s, h'] + bias[b, h, t, s]) v[b, s, h'] over the keys that query t sees, in one
// pass over the keys, for software adapters with subgroups. A query that sees no key gets zeros.
//
// q: f32[B, T, H, d]  k, v: f32[B, S, Hkv, d], all strided  mask: u32[B, S], 1 = visible  past: u32[1]
// bias: f32[B, H, T, S], strided  ->  y: f32[B, T, H, d]
// FlashAttention with the online softmax of parts/flash.wgsl. A workgroup is one subgroup of SG lanes. It takes TT queries of one
// head and walks over the keys in tiles of KB·SG. q·k: a lane has KB keys, SG apart. Weights times values: a lane has CHUNKS
// groups of four of the head, SG apart. On these adapters a load costs some ten multiply-adds, of a scalar or a vec4, also of one
// address for all lanes; a shuffle costs one. So everything is loaded as vec4, by one lane, and broadcast by shuffles; and
// Params, which are loads too, are read before the loops.
// Dispatch: B · H · ceil(T / TT), folded. Needs: subgroups of exactly SG lanes.
enable subgroups;
// @use attention
// @use heads = heads_vec4
// @use subgroup_reduce
// @use math
override SG: u32 = 8;
override TT: u32 = 8; // at most 8
override CHUNKS: u32 = 3; // ceil(d / 4 / SG), at most 8
override MASK: u32 = 0; // params.has_mask
override BIAS: u32 = 0; // params.has_bias
// Loads of q for TT queries, one query a lane. An override, because Mesa does not determine the trip count of n * SG < TT.
override LOADS: u32 = (TT + SG - 1u) / SG;
const KB = 4u;
const QUERIES = 8u; // largest TT
const LOWEST = -3.4028234e38;

@group(0) @binding(3) var<storage, read> mask: array<u32>;
@group(0) @binding(4) var<storage, read> past: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;

@compute @workgroup_size(SG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let i = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let tiles = (params.T + TT - 1u) / TT;
  let t0 = (i % tiles) * TT;
  let h = (i / tiles) % params.H;
  let b = i / (tiles * params.H);
  if (b >= params.B) {
    return;
  }
  let t_last = min(t0 + TT, params.T) - 1u;
  let end = key_end(t_last);
  let first_end = key_end(t0);
  let causal_step = min(params.causal, 1u);
  let S = params.S;
  let D4 = (params.d + 3u) / 4u;
  let scale = params.scale;
  let k0 = params.k_offset + (h / params.heads_per_key) * params.k_h;
  let k_b = params.k_b;
  let k_s = params.k_s;
  let v0 = params.v_offset + (h / params.heads_per_key) * params.v_h;
  let v_b = params.v_b;
  let v_s = params.v_s;
  let bias0 = bias_place(b, t0, 0u, h);
  let bias_t = params.bias_t;
  let bias_s = params.bias_s;

  var query: array<u32, QUERIES>; // offsets of those that this lane loads
  for (var n = 0u; n < LOADS; n++) {
    query[n] = q_start(b, min(t0 + n * SG + lane, t_last), h);
  }
  var sums: array<array<vec4<f32>, 8>, QUERIES>;
  var largest: array<f32, QUERIES>;
  var total: array<f32, QUERIES>; // over this lane's keys
  for (var r = 0u; r < TT; r++) {
    largest[r] = LOWEST;
  }
  var shrink: array<f32, QUERIES>;
  for (var s0 = 0u; s0 < end; s0 += KB * SG) {
    var key: array<u32, KB>; // offsets of this lane's keys
    var value: array<u32, KB>;
    var open: array<bool, KB>; // whether this lane's keys are visible to any query
    for (var n = 0u; n < KB; n++) {
      let s = min(s0 + n * SG + lane, end - 1u);
      var row = b;
      open[n] = s0 + n * SG + lane < end;
      if (MASK != 0u) {
        let visible = mask[b * S + s];
        open[n] = open[n] && visible != 0u;
        if (MASK == 2u) {
          row = max(visible, 1u) - 1u;
        }
      }
      key[n] = k0 + row * k_b + s * k_s;
      value[n] = v0 + row * v_b + s * v_s;
    }
    var scores = array<array<f32, KB>, QUERIES>(); // initialized: see docs/kernels.md
    for (var c = 0u; c < D4; c++) {
      var of_queries: array<vec4<f32>, QUERIES>;
      for (var n = 0u; n < LOADS; n++) {
        of_queries[n] = load_q(query[n], c);
      }
      var of_keys: array<vec4<f32>, KB>;
      for (var n = 0u; n < KB; n++) {
        of_keys[n] = load_k(key[n], c);
      }
      for (var r = 0u; r < TT; r++) {
        let a = subgroupShuffle(of_queries[r / SG], r % SG);
        for (var n = 0u; n < KB; n++) {
          scores[r][n] += dot(a, of_keys[n]);
        }
      }
    }

    for (var r = 0u; r < TT; r++) {
      let t_end = min(first_end + r * causal_step, S);
      var new_largest = largest[r];
      for (var n = 0u; n < KB; n++) {
        let s = s0 + n * SG + lane;
        var score = scores[r][n] * scale;
        if (BIAS != 0u) {
          score += bias[bias0 + (min(t0 + r, t_last) - t0) * bias_t + min(s, end - 1u) * bias_s];
        }
        scores[r][n] = select(LOWEST, score, open[n] && s < t_end);
        new_largest = max(new_largest, scores[r][n]);
      }
      new_largest = max_over_lanes(new_largest);
      shrink[r] = exp_negative(largest[r] - new_largest);
      largest[r] = new_largest;
      var of_block = 0.0;
      for (var n = 0u; n < KB; n++) {
        let weight = exp_negative(scores[r][n] - new_largest);
        scores[r][n] = select(weight, 0.0, scores[r][n] == LOWEST);
        of_block += scores[r][n];
      }
      total[r] = total[r] * shrink[r] + of_block;
    }

    var of_block = array<array<vec4<f32>, 8>, QUERIES>(); // initialized: see docs/kernels.md
    let block_end = min(s0 + KB * SG, end);
    for (var s1 = s0; s1 < block_end; s1 += SG) {
      var of_keys: array<f32, QUERIES>;
      for (var r = 0u; r < TT; r++) {
        of_keys[r] = scores[r][0];
        for (var n = 1u; n < KB; n++) {
          of_keys[r] = select(of_keys[r], scores[r][n], s1 == s0 + n * SG);
        }
      }
      var of_values = value[0];
      for (var n = 1u; n < KB; n++) {
        of_values = select(of_values, value[n], s1 == s0 + n * SG);
      }
      let s_end = min(s1 + SG, end);
      for (var s = s1; s < s_end; s++) {
        let at = subgroupShuffle(of_values, s - s1);
        var weights: array<f32, QUERIES>;
        for (var r = 0u; r < TT; r++) {
          weights[r] = subgroupShuffle(of_keys[r], s - s1);
        }
        for (var c = 0u; c < CHUNKS; c++) {
          let numbers = load_v(at, min(c * SG + lane, D4 - 1u));
          for (var r = 0u; r < TT; r++) {
            of_block[r][c] += weights[r] * numbers;
          }
        }
      }
    }
    for (var r = 0u; r < TT; r++) {
      for (var c = 0u; c < CHUNKS; c++) {
        sums[r][c] = sums[r][c] * shrink[r] + of_block[r][c];
      }
    }
  }

  for (var r = 0u; r < TT; r++) {
    let sum = sum_over_lanes(total[r]);
    let inverse = select(1.0 / sum, 0.0, sum == 0.0);
    for (var c = 0u; c < CHUNKS; c++) {
      sums[r][c] *= inverse;
    }
  }
  // One store in the code, past which the queries are shifted one by one: unrolled, TT stores take long to compile.
  var at = ((b * params.T + t0) * params.H + h) * params.d;
  for (var t = t0; t <= t_last; t++) {
    for (var c = 0u; c < CHUNKS; c++) {
      if (c * SG + lane < D4) {
        store_y(at, c * SG + lane, sums[0][c]);
      }
      for (var r = 1u; r < TT; r++) {
        sums[r - 1u][c] = sums[r][c];
      }
    }
    at += params.H * params.d;
  }
}
`,
  "attention/attention_values": `// y[b, t, h, i] = Σₛ p[b, h, t, s] v[b, s, h', i] over the keys that query t sees. The last of the three steps of composed
// attention. Keys that are not visible are skipped, so that a query that sees none gets zeros.
//
// p: f32[B, H, T, S]  kv: f32[B, S, Hkv, d], the values, strided  mask: u32[B, S], 1 = visible  past: u32[1]
// ->  y: f32[B, T, H, d]
// One invocation an element of y.
// Dispatch: ceil(B·T·H·d / WG), folded. Needs: nothing.
// @use attention
// @use kv = kv_f32
override WG: u32 = 64;

@group(0) @binding(0) var<storage, read> p: array<f32>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;
@group(0) @binding(3) var<storage, read> past: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  let c = i % params.d;
  let h = (i / params.d) % params.H;
  let t = (i / (params.d * params.H)) % params.T;
  let b = i / (params.d * params.H * params.T);
  if (b >= params.B) {
    return;
  }
  let p0 = ((b * params.H + h) * params.T + t) * params.S;
  let end = key_end(t);
  var sum = 0.0;
  for (var s = 0u; s < end; s++) {
    if (is_visible(b, t, s)) {
      sum += p[p0 + s] * load_kv(v_start(b, s, h), c);
    }
  }
  y[i] = sum;
}
`,
  "attention/parts/attention": `// Shared by all attention kernels: Params, visibility and offsets. The kernel binds mask and past.
// Grouped-query attention (GQA): H query heads, Hkv key/value heads. q, k and v are strided views; strides count elements, that of
// the head dimension is 1. k and v may be f16, two in a u32: u32[B, S, Hkv, d/2]. The kernel's slot heads or kv loads them.

struct Params {
  B: u32,
  T: u32, // queries
  S: u32, // keys
  H: u32,
  heads_per_key: u32, // H / Hkv: neighbouring query heads that share a key/value head
  d: u32,
  scale: f32,
  causal: u32, // query t sees the keys up to past + t
  has_mask: u32, // 0: mask is a placeholder; 1: it is 1 for a visible key; 2: a block table, 1 + the key's row of k and v
  has_bias: u32, // 0: bias is a placeholder
  q_offset: u32,
  q_b: u32,
  q_t: u32,
  q_h: u32,
  k_offset: u32,
  k_b: u32,
  k_s: u32,
  k_h: u32,
  v_offset: u32,
  v_b: u32,
  v_s: u32,
  v_h: u32,
  bias_offset: u32,
  bias_b: u32,
  bias_h: u32,
  bias_t: u32,
  bias_s: u32,
}

@group(0) @binding(8) var<uniform> params: Params;

// Queries up to t see only keys below it. Others are never read: there a cache is not initialized.
fn key_end(t: u32) -> u32 {
  if (params.causal == 0u) {
    return params.S;
  }
  return min(params.S, past[0] + t + 1u);
}

// Whether query t of batch b sees key s, for s < S.
fn is_visible(b: u32, t: u32, s: u32) -> bool {
  if (params.causal != 0u && s > past[0] + t) {
    return false;
  }
  return params.has_mask == 0u || mask[b * params.S + s] != 0u;
}

// The row of k and v that holds key s of batch b. Of a key that is not visible, any row.
fn key_row(b: u32, s: u32) -> u32 {
  if (params.has_mask != 2u) {
    return b;
  }
  return max(mask[b * params.S + s], 1u) - 1u;
}

// The index of a head's first number.
fn q_start(b: u32, t: u32, h: u32) -> u32 {
  return params.q_offset + b * params.q_b + t * params.q_t + h * params.q_h;
}

fn k_start(b: u32, s: u32, h: u32) -> u32 {
  return params.k_offset + key_row(b, s) * params.k_b + s * params.k_s + (h / params.heads_per_key) * params.k_h;
}

fn v_start(b: u32, s: u32, h: u32) -> u32 {
  return params.v_offset + key_row(b, s) * params.v_b + s * params.v_s + (h / params.heads_per_key) * params.v_h;
}

// The index of the bias of query t and key s.
fn bias_place(b: u32, t: u32, s: u32, h: u32) -> u32 {
  return params.bias_offset + b * params.bias_b + h * params.bias_h + t * params.bias_t + s * params.bias_s;
}
`,
  "attention/parts/edges_all": `// Every query attends to every key that it sees.
// @slot edges: has_edge(b: u32, t: u32, s: u32, h: u32) -> bool
fn has_edge(b: u32, t: u32, s: u32, h: u32) -> bool {
  return true;
}
`,
  "attention/parts/edges_cut": `// Edges between queries and keys that are cut: a cut edge is as a key that the query does not see. Contract: edges_all.
// edges: f32[B or 1, H or 1, T, S], 0 = cut
override EDGE_ROWS: u32 = 0; // 1: each row has edges of its own
override EDGE_HEADS: u32 = 0; // 1: each head has

@group(0) @binding(6) var<storage, read> edges: array<f32>;

fn has_edge(b: u32, t: u32, s: u32, h: u32) -> bool {
  let heads = select(1u, params.H, EDGE_HEADS == 1u);
  let map = b * EDGE_ROWS * heads + h * EDGE_HEADS;
  return edges[(map * params.T + t) * params.S + s] != 0.0;
}
`,
  "attention/parts/flash": `// FlashAttention: softmax(scale · q kᵀ + bias) v in one pass over tiles of keys, without writing the scores to memory. With parts
// attention, heads and math; for kernels that differ only in the subgroup size they ask for.
// A team of TEAM threads takes TT queries of one head, a workgroup several teams, which share K and V in the cache. The softmax is
// online: for each query the team keeps the running maximum of the scores, the sum of e^(score - maximum) and the sum of the values
// weighted by it, and rescales both sums when a tile of BS keys raises the maximum. For each tile:
//   1. One thread a key looks up its mask and the offsets of its key and value.
//   2. q·k: LANES neighbouring threads share a key, so that loads are coalesced; each adds up its groups of four of the head, for
//      KEYS keys by TT queries in registers. q is in shared memory, and one load of it serves KEYS keys.
//   3. Each thread adds the LANES partial scores of two keys, then bias and mask.
//   4. The maximum over the team, in two rounds through shared memory; then each thread the weights e^(score - maximum) of its
//      two keys.
//   5. Weights times values: VALUE_LANES neighbouring threads share a value, loads coalesced, IN_FLIGHT keys at a time. The two
//      rows of VALUE_LANES threads of a team take every other key; their sums are added at the end.
// Subgroups are not used. Keys beyond the last are read as the last and get weight 0.
// The loops over the head and over values have counts unknown to the compiler: unrolled whole, they take minutes to compile.
override WG: u32 = 64; // threads; a multiple of BS
override D4: u32 = 16; // ceil(d / 4)
override IN_FLIGHT: u32 = 4; // keys whose values are loaded at a time; 1, 2 or 4
override STEPS: u32 = (D4 + LANES - 1u) / LANES;
override CHUNKS: u32 = (D4 + VALUE_LANES - 1u) / VALUE_LANES; // groups of four of a value per thread, at most 8
const TEAM = 16u;
const TT = 4u; // one for each component of a vec4
const BS = 32u;
const LANES = 4u;
const KEYS = BS * LANES / TEAM;
const VALUE_LANES = 8u;
const STRIDE = BS + 2u; // between partial scores of a key; padded against bank conflicts
const LOWEST = -3.4028234e38;

@group(0) @binding(3) var<storage, read> mask: array<u32>;
@group(0) @binding(4) var<storage, read> past: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;

// q transposed, [component][team][group of four] of a team's TT queries; zeros beyond the head.
var<workgroup> q_tile: array<vec4<f32>, 4u * (WG / TEAM) * LANES * STEPS>;
// Partial scores [team][lane][key] of a team's TT queries; then also maxima and weights, in elements that only the thread which
// writes them has read.
var<workgroup> partials: array<vec4<f32>, (WG / TEAM) * LANES * STRIDE>;
// Of the keys of a tile; offsets of values are double-buffered, because threads may still be at step 5 of the tile before.
var<workgroup> visible: array<u32, BS>;
var<workgroup> k_starts: array<u32, BS>;
var<workgroup> v_starts: array<u32, 2u * BS>;

fn attend(workgroup: u32, thread: u32) {
  let TEAMS = WG / TEAM;
  let BT = TT * TEAMS;
  let tiles = (params.T + BT - 1u) / BT;
  let t0 = (workgroup % tiles) * BT;
  let h = (workgroup / tiles) % params.H;
  let b = workgroup / (tiles * params.H);
  if (b >= params.B) {
    return;
  }
  let t_last = min(t0 + BT, params.T) - 1u;
  let end = key_end(t_last);
  // The % change nothing: they prove to Tint that indices into shared memory are in range, so that it does not clamp them.
  let team = (thread / TEAM) % TEAMS;
  let key = thread % TEAM; // of steps 3 and 4, and key + TEAM
  let lane = thread % LANES; // of step 2, in row k_row
  let k_row = (thread / LANES) % (TEAM / LANES);
  let v_lane = lane + (thread / (2u * LANES)) % 2u * LANES; // of step 5, in row v_row
  let v_row = (thread / LANES) % 2u;
  let team_partials = team * LANES * STRIDE;
  let team_q = team * LANES * STEPS;
  let last_group = (params.d + 3u) / 4u - 1u;
  let group_end = (last_group / LANES + 1u) * LANES;

  let COMPONENT = TEAMS * LANES * STEPS; // elements of q_tile
  for (var at = thread; at < COMPONENT; at += WG) {
    let c = at % (LANES * STEPS);
    let t = t0 + at / (LANES * STEPS) * TT;
    var numbers: mat4x4<f32>;
    for (var r = 0u; r < TT; r++) {
      numbers[r] = load_q(q_start(b, min(t + r, t_last), h), min(c, last_group)) * params.scale;
    }
    numbers = transpose(numbers);
    for (var n = 0u; n < 4u; n++) {
      q_tile[n * COMPONENT + at] = select(vec4<f32>(), numbers[n], c <= last_group);
    }
  }

  // Params are loads: all before the loop.
  let has_mask = params.has_mask;
  let mask0 = b * params.S;
  let k0 = params.k_offset + (h / params.heads_per_key) * params.k_h;
  let k_b = params.k_b;
  let k_s = params.k_s;
  let v0 = params.v_offset + (h / params.heads_per_key) * params.v_h;
  let v_b = params.v_b;
  let v_s = params.v_s;
  let has_bias = params.has_bias;
  let team_t = min(t0 + team * TT + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(t_last));
  let bias_t = bias_place(b, 0u, 0u, h) + team_t * params.bias_t;
  let bias_s = params.bias_s;
  var ends = vec4<u32>(end); // of the keys that each query sees
  if (params.causal != 0u) {
    ends = min(ends, key_end(t0) + (team_t - t0));
  }

  var largest = vec4<f32>(LOWEST);
  var total = vec4<f32>(); // over this thread's keys
  var sums: array<array<vec4<f32>, TT>, 8>;
  for (var s0 = 0u; s0 < end; s0 += BS) {
    let buffer = s0 / BS % 2u * BS; // of v_starts
    if (thread < BS) {
      let s = min(s0 + thread, end - 1u);
      var shown = 1u;
      var row = b;
      if (has_mask != 0u) {
        shown = mask[mask0 + s];
        row = select(b, max(shown, 1u) - 1u, has_mask == 2u);
      }
      visible[thread % BS] = select(0u, shown, s0 + thread < end);
      k_starts[thread % BS] = k0 + row * k_b + s * k_s;
      v_starts[buffer + thread % BS] = v0 + row * v_b + s * v_s;
    }
    workgroupBarrier(); // also before the weights of the last tile are overwritten

    var starts: array<u32, KEYS>;
    for (var n = 0u; n < KEYS; n++) {
      starts[n] = k_starts[n * (TEAM / LANES) + k_row];
    }
    var partial = array<vec4<f32>, KEYS>(); // initialized: see docs/kernels.md
    for (var c = lane; c < group_end; c += LANES) {
      var of_keys: array<vec4<f32>, KEYS>;
      for (var n = 0u; n < KEYS; n++) {
        of_keys[n] = load_k(starts[n], min(c, last_group));
      }
      let at = team_q + c % (LANES * STEPS);
      let q0 = q_tile[at];
      let q1 = q_tile[COMPONENT + at];
      let q2 = q_tile[2u * COMPONENT + at];
      let q3 = q_tile[3u * COMPONENT + at];
      for (var n = 0u; n < KEYS; n++) {
        let k = of_keys[n];
        partial[n] = fma(q3, vec4(k.w), fma(q2, vec4(k.z), fma(q1, vec4(k.y), fma(q0, vec4(k.x), partial[n]))));
      }
    }
    for (var n = 0u; n < KEYS; n++) {
      partials[team_partials + lane * STRIDE + n * (TEAM / LANES) + k_row] = partial[n];
    }
    workgroupBarrier();

    var scores: array<vec4<f32>, 2>;
    for (var n = 0u; n < 2u; n++) {
      let at = team_partials + key + n * TEAM;
      let s = s0 + key + n * TEAM;
      var score = (partials[at] + partials[at + STRIDE]) + (partials[at + 2u * STRIDE] + partials[at + 3u * STRIDE]);
      if (has_bias != 0u) {
        let places = bias_t + min(s, end - 1u) * bias_s;
        score += vec4<f32>(bias[places.x], bias[places.y], bias[places.z], bias[places.w]);
      }
      let sees = (vec4<u32>(s) < ends) & vec4<bool>(visible[key + n * TEAM] != 0u);
      scores[n] = select(vec4<f32>(LOWEST), score, sees);
    }

    // The maximum of two keys, of eight, of all 32.
    let maxima = team_partials + STRIDE;
    partials[maxima + key] = max(scores[0], scores[1]);
    workgroupBarrier();
    let four = maxima + lane * 4u;
    partials[maxima + STRIDE + key] = max(max(partials[four], partials[four + 1u]), max(partials[four + 2u], partials[four + 3u]));
    workgroupBarrier();
    let fours = maxima + STRIDE;
    let tile_maximum = max(max(partials[fours], partials[fours + 1u]), max(partials[fours + 2u], partials[fours + 3u]));
    let new_largest = max(largest, tile_maximum);
    let shrink = exp_negative_vec4(largest - new_largest);
    largest = new_largest;
    total *= shrink;
    for (var n = 0u; n < 2u; n++) {
      let weight = select(exp_negative_vec4(scores[n] - largest), vec4<f32>(), scores[n] == vec4<f32>(LOWEST));
      partials[team_partials + key + n * TEAM] = weight;
      total += weight;
    }
    workgroupBarrier();

    for (var c = 0u; c < CHUNKS; c++) {
      for (var r = 0u; r < TT; r++) {
        sums[c][r] *= shrink[r];
      }
    }
    let keys = min(BS, end - s0);
    for (var n0 = 0u; n0 < keys; n0 += 2u * IN_FLIGHT) {
      var values: array<array<vec4<f32>, 8>, 4>;
      for (var n = 0u; n < IN_FLIGHT; n++) {
        let start = v_starts[buffer + (n0 + 2u * n + v_row) % BS];
        for (var c = 0u; c < CHUNKS; c++) {
          let chunk = v_lane + c * VALUE_LANES;
          let is_last = (c + 1u) * VALUE_LANES > D4;
          values[n][c] = load_v(start, select(chunk, min(chunk, last_group), is_last));
        }
      }
      for (var n = 0u; n < IN_FLIGHT; n++) {
        let weight = partials[team_partials + (n0 + 2u * n + v_row) % BS];
        for (var c = 0u; c < CHUNKS; c++) {
          for (var r = 0u; r < TT; r++) {
            sums[c][r] = fma(vec4<f32>(weight[r]), values[n][c], sums[c][r]);
          }
        }
      }
    }
  }
  workgroupBarrier();

  partials[team_partials + key] = total;
  workgroupBarrier();
  let four = team_partials + lane * 4u;
  partials[team_partials + STRIDE + key] = (partials[four] + partials[four + 1u]) + (partials[four + 2u] + partials[four + 3u]);
  workgroupBarrier();
  let fours = team_partials + STRIDE;
  total = (partials[fours] + partials[fours + 1u]) + (partials[fours + 2u] + partials[fours + 3u]);
  // Each row of threads stores two of the four queries, and passes its sums of the other two to the other row.
  let is_first = v_row == 0u;
  for (var c = 0u; c < CHUNKS; c++) {
    let passed = team_partials + 2u * STRIDE + c % 2u * 4u * VALUE_LANES + v_lane;
    for (var r = 0u; r < 2u; r++) {
      partials[passed + (2u * v_row + r) * VALUE_LANES] = select(sums[c][r], sums[c][r + 2u], is_first);
    }
    workgroupBarrier();
    for (var r = 0u; r < 2u; r++) {
      let own = select(sums[c][r + 2u], sums[c][r], is_first);
      let sum = own + partials[passed + (2u * (1u - v_row) + r) * VALUE_LANES];
      let over = select(total[r + 2u], total[r], is_first);
      let t = t0 + team * TT + 2u * v_row + r;
      let chunk = v_lane + c * VALUE_LANES;
      if (t < params.T && chunk <= last_group) {
        store_y(((b * params.T + t) * params.H + h) * params.d, chunk, select(sum / over, vec4<f32>(), over == 0.0));
      }
    }
  }
}

fn exp_negative_vec4(x: vec4<f32>) -> vec4<f32> {
  return vec4<f32>(exp_negative(x.x), exp_negative(x.y), exp_negative(x.z), exp_negative(x.w));
}
`,
  "attention/parts/heads_f16": `// Loads heads whose k and v are f16, two in a u32, four numbers at a time; d is a multiple of 4. Strides and offsets of k and v
// count u32 and are multiples of 2; those of q are multiples of 4. Contract: heads_vec4.
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> v: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;

// Numbers 4·group … 4·group + 3 of the head that begins at start.
fn load_q(start: u32, group: u32) -> vec4<f32> {
  return q[start / 4u + group];
}

fn load_k(start: u32, group: u32) -> vec4<f32> {
  let bits = k[start / 2u + group];
  return vec4<f32>(unpack2x16float(bits.x), unpack2x16float(bits.y));
}

fn load_v(start: u32, group: u32) -> vec4<f32> {
  let bits = v[start / 2u + group];
  return vec4<f32>(unpack2x16float(bits.x), unpack2x16float(bits.y));
}

fn store_y(start: u32, group: u32, numbers: vec4<f32>) {
  y[start / 4u + group] = numbers;
}
`,
  "attention/parts/heads_scalar": `// Loads and stores heads of any size and strides. Beyond the end of a head zeros are loaded, and nothing is stored. Contract:
// heads_vec4.
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

// The indices of numbers 4·group … 4·group + 3 of a head, clamped to its last.
fn places(start: u32, group: u32) -> vec4<u32> {
  return start + min(vec4<u32>(0u, 1u, 2u, 3u) + 4u * group, vec4<u32>(params.d - 1u));
}

fn without_tail(numbers: vec4<f32>, group: u32) -> vec4<f32> {
  return select(numbers, vec4<f32>(), vec4<u32>(0u, 1u, 2u, 3u) + 4u * group >= vec4<u32>(params.d));
}

// Numbers 4·group … 4·group + 3 of the head that begins at start.
fn load_q(start: u32, group: u32) -> vec4<f32> {
  let at = places(start, group);
  return without_tail(vec4<f32>(q[at.x], q[at.y], q[at.z], q[at.w]), group);
}

fn load_k(start: u32, group: u32) -> vec4<f32> {
  let at = places(start, group);
  return without_tail(vec4<f32>(k[at.x], k[at.y], k[at.z], k[at.w]), group);
}

fn load_v(start: u32, group: u32) -> vec4<f32> {
  let at = places(start, group);
  return without_tail(vec4<f32>(v[at.x], v[at.y], v[at.z], v[at.w]), group);
}

fn store_y(start: u32, group: u32, numbers: vec4<f32>) {
  for (var c = 0u; c < 4u; c++) {
    if (4u * group + c < params.d) {
      y[start + 4u * group + c] = numbers[c];
    }
  }
}
`,
  "attention/parts/heads_vec4": `// Loads and stores heads, one vec4 at a time; d, strides and offsets are multiples of 4.
// @slot heads: q, k, v, y, store_y(start: u32, group: u32, numbers: vec4<f32>)
// @slot heads: load_q(start: u32, group: u32) -> vec4<f32>
// @slot heads: load_k(start: u32, group: u32) -> vec4<f32>
// @slot heads: load_v(start: u32, group: u32) -> vec4<f32>
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;

// Numbers 4·group … 4·group + 3 of the head that begins at start.
fn load_q(start: u32, group: u32) -> vec4<f32> {
  return q[start / 4u + group];
}

fn load_k(start: u32, group: u32) -> vec4<f32> {
  return k[start / 4u + group];
}

fn load_v(start: u32, group: u32) -> vec4<f32> {
  return v[start / 4u + group];
}

fn store_y(start: u32, group: u32, numbers: vec4<f32>) {
  y[start / 4u + group] = numbers;
}
`,
  "attention/parts/kv_f16": `// Loads f16 keys or values, two in a u32, one number at a time; start counts u32. Contract: kv_f32.
@group(0) @binding(1) var<storage, read> kv: array<u32>;

// Number c of the head that begins at start.
fn load_kv(start: u32, c: u32) -> f32 {
  return unpack2x16float(kv[start + c / 2u])[c % 2u];
}
`,
  "attention/parts/kv_f32": `// Loads f32 keys or values, one number at a time.
// @slot kv: kv, load_kv(start: u32, c: u32) -> f32
@group(0) @binding(1) var<storage, read> kv: array<f32>;

// Number c of the head that begins at start.
fn load_kv(start: u32, c: u32) -> f32 {
  return kv[start + c];
}
`,
  "bench/limit_copy": `// y = x, four numbers at a time: measures memory bandwidth.
//
// x: f32[n]  ->  y: f32[n], n a multiple of four
// Threads access contiguous numbers, TURNS times: eight threads of a software adapter cost as much as copying some hundred
// numbers.
// Dispatch: ceil(n / (4 · TURNS · WG)), folded. Needs: nothing.
override WG: u32 = 64;
const TURNS = 16u;

struct Params {
  groups: u32, // n / 4
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let workgroup = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let end = min((workgroup + 1u) * WG * TURNS, params.groups);
  for (var i = workgroup * WG * TURNS + lane; i < end; i += WG) {
    y[i] = x[i];
  }
}
`,
  "bench/limit_multiply_add": `// y = s after steps of s = a s + b, in CHAINS chains of four: measures arithmetic throughput.
//
// x: f32[4], of which a, b and the first s are made, so that nothing is known before the kernel runs  ->  y: f32[WG · workgroups]
// The chains are independent: as many as hide the latency of a multiply-add and fit into registers. The loop is unrolled
// UNROLL times, as it has a cost, too.
// Dispatch: any. Needs: nothing.
override WG: u32 = 64;
const CHAINS = 4u;
const UNROLL = 4u;

struct Params {
  turns: u32, // of UNROLL steps each
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) invocation: vec3<u32>) {
  let a = vec4(x[0]);
  let b = vec4(x[1]);
  var s: array<vec4<f32>, CHAINS>;
  for (var c = 0u; c < CHAINS; c++) {
    s[c] = vec4(x[2]) + f32(c) * x[3];
  }
  for (var turn = 0u; turn < params.turns; turn++) {
    for (var step = 0u; step < UNROLL; step++) {
      for (var c = 0u; c < CHAINS; c++) {
        s[c] = fma(s[c], a, b);
      }
    }
  }
  var sum = vec4(0.0);
  for (var c = 0u; c < CHAINS; c++) {
    sum += s[c];
  }
  y[invocation.x] = dot(sum, vec4(1.0));
}
`,
  "bench/limit_noop": `// An empty kernel: measures the cost of a launch.
//
// One workgroup of one invocation, which does not write y; the driver cannot know this, and must run it.
// y: f32[1]
// Dispatch: 1. Needs: nothing.
struct Params {
  write: u32,
}

@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(1)
fn main() {
  if (params.write > 0u) {
    y[0] = 1.0;
  }
}
`,
  "bench/limit_read": `// y = the sum of TURNS numbers of x, four at a time: measures the bandwidth of reading, as in a matrix-vector product.
//
// x: f32[n], n = 4 · TURNS · WG · workgroups  ->  y: f32[n / TURNS]
// Contiguous reads: in each iteration a workgroup reads WG · 16 contiguous bytes.
// Dispatch: n / (4 · TURNS · WG), folded. Needs: nothing.
override WG: u32 = 64;
const TURNS = 64u;

struct Params {
  groups: u32, // n / (4 · TURNS)
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let workgroup = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let i = workgroup * WG + lane;
  if (i >= params.groups) {
    return;
  }
  var sum = vec4(0.0);
  for (var turn = 0u; turn < TURNS; turn++) {
    sum += x[(workgroup * TURNS + turn) * WG + lane];
  }
  y[i] = sum;
}
`,
  "cache/kv_append": `// cache[b, h, past + t] = x[b, t, h]: appends new keys or values to a key/value cache.
//
// x: f32[B, T, Hkv, d], strided, last stride 1  past: u32[1]  ->  cache: f32[B, Hkv, C, d], of which T places are written; or
// f16, two in a u32: u32[B, Hkv, C, d/2]
// One invocation an element: a number or, where d, strides and offset are multiples of 4, four. All sizes count elements. The
// cache's length is read from a buffer, so that the launch is the same at every decoding step. Nothing is written beyond C.
// Dispatch: ceil(B·T·Hkv·d / WG), folded. Needs: nothing.
// @use store = store_f32x4
override WG: u32 = 64;

struct Params {
  size: u32, // B·T·Hkv·d
  T: u32,
  Hkv: u32,
  C: u32,
  d: u32,
  x_offset: u32,
  x_b: u32,
  x_t: u32,
  x_h: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> past: array<u32>;
@group(0) @binding(2) var<storage, read_write> cache: array<Stored>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  if (i >= params.size) {
    return;
  }
  let k = i % params.d;
  let head = i / params.d;
  let h = head % params.Hkv;
  let token = head / params.Hkv;
  let t = token % params.T;
  let b = token / params.T;
  let place = past[0] + t;
  if (place >= params.C) {
    return;
  }
  let src = params.x_offset + b * params.x_b + t * params.x_t + h * params.x_h + k;
  cache[((b * params.Hkv + h) * params.C + place) * params.d + k] = encode(x[src]);
}
`,
  "cache/parts/f16x2": `// Packs two f16 into a u32, by builtins that need no GPU feature. A number outside f16's range becomes f16's largest, so that
// no infinity enters a sum; a NaN stays a NaN. To which neighbouring f16 a number is rounded, WGSL leaves to the driver.
const LARGEST_F16 = vec2<f32>(65504.0);

fn pack_f16x2(numbers: vec2<f32>) -> u32 {
  // Not clamp(), which turns NaN into a number and so hides a fault.
  let bounded = select(select(numbers, -LARGEST_F16, numbers < -LARGEST_F16), LARGEST_F16, numbers > LARGEST_F16);
  return pack2x16float(bounded);
}
`,
  "cache/parts/f32_element": `// The element of a kernel of the cache: one number. Serves any width.
alias Element = f32;
`,
  "cache/parts/f32x4_element": `// The element of a kernel of the cache: four neighbouring numbers, where widths are multiples of 4.
alias Element = vec4<f32>;
`,
  "cache/parts/store_f16x2": `// Stores two neighbouring numbers in an f16 cache, for rotary heads where half a head is not a multiple of 4.
// @use f16x2
alias Element = vec2<f32>;
alias Stored = u32;

fn encode(numbers: Element) -> Stored {
  return pack_f16x2(numbers);
}
`,
  "cache/parts/store_f16x4": `// Stores four neighbouring numbers in an f16 cache.
// @use f32x4_element
// @use f16x2
alias Stored = vec2<u32>;

fn encode(numbers: Element) -> Stored {
  return vec2<u32>(pack_f16x2(numbers.xy), pack_f16x2(numbers.zw));
}
`,
  "cache/parts/store_f32": `// Stores one number in an f32 cache. Serves any width.
// @use f32_element
alias Stored = f32;

fn encode(number: Element) -> Stored {
  return number;
}
`,
  "cache/parts/store_f32x4": `// Stores four neighbouring numbers in an f32 cache. Element is what the kernel computes with, Stored what the cache holds.
// @slot store: Element, Stored, encode(numbers: Element) -> Stored
// @use f32x4_element
alias Stored = vec4<f32>;

fn encode(numbers: Element) -> Stored {
  return numbers;
}
`,
  "cache/rope": `// Rotary position embedding (RoPE): rotates the pair (x[j], x[j + d/2]) by the table's angle for its position and j.
//
// x: f32[B, T, H, d], strided, last stride 1  table: f32[P, d], cosines then sines of d/2 angles
// positions: u32[B, T], a position of P or more counting as P - 1  ->  y: f32[B, T, H, d]
// One invocation a pair. The pairs are HF's "rotate_half": first half and second half, not even and odd.
// Dispatch: ceil(B·T·H·d/2 / WG), folded. Needs: nothing.
// Source: Su et al. 2021, RoFormer; transformers' apply_rotary_pos_emb.
override WG: u32 = 64;

struct Params {
  size: u32, // B·T·H·d/2
  T: u32,
  H: u32,
  half: u32, // d/2
  P: u32,
  x_offset: u32,
  x_b: u32,
  x_t: u32,
  x_h: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  if (i >= params.size) {
    return;
  }
  let j = i % params.half;
  let head = i / params.half; // of all B·T·H
  let h = head % params.H;
  let token = head / params.H; // of all B·T
  let t = token % params.T;
  let b = token / params.T;

  let angle = min(positions[token], params.P - 1u) * 2u * params.half + j;
  let cosine = table[angle];
  let sine = table[angle + params.half];
  let src = params.x_offset + b * params.x_b + t * params.x_t + h * params.x_h + j;
  let first = x[src];
  let second = x[src + params.half];
  let dst = head * 2u * params.half + j;
  y[dst] = first * cosine - second * sine;
  y[dst + params.half] = second * cosine + first * sine;
}
`,
  "cache/rope_append": `// Splits a fused projection into rotated queries, and keys and values for the cache: keys are rotated and appended, values
// are appended as they are. The same as rope on queries and keys, and kv_append on keys and values.
//
// qkv: f32[B, T, (H + 2Hkv)·d], the heads of queries, keys and values  table: f32[P, d], as rope.wgsl's
// positions: u32[B, T], P or more counting as P - 1  past: u32[1]
// ->  q: f32[B, T, H, d]  keys, values: f32[≥ B, Hkv, C, d], of which T places of B rows are written; or f16, two in a
// u32: u32[≥ B, Hkv, C, d/2]
// One invocation two elements of a head, half a head apart. An element is four numbers where d is a multiple of 8; else one of
// f32, two of f16.
// Dispatch: ceil(size / WG), folded. Needs: nothing.
// @use store = store_f32x4
override WG: u32 = 64;

struct Params {
  size: u32, // B·T·(H + 2Hkv)·half
  T: u32,
  H: u32,
  Hkv: u32,
  half: u32, // d/2, in elements
  P: u32,
  C: u32,
}

@group(0) @binding(0) var<storage, read> qkv: array<Element>;
@group(0) @binding(1) var<storage, read> table: array<Element>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> past: array<u32>;
@group(0) @binding(4) var<storage, read_write> q: array<Element>;
@group(0) @binding(5) var<storage, read_write> keys: array<Stored>;
@group(0) @binding(6) var<storage, read_write> values: array<Stored>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  if (i >= params.size) {
    return;
  }
  let half = params.half;
  let heads = params.H + 2u * params.Hkv;
  let j = i % half;
  let head = (i / half) % heads;
  let token = i / (half * heads); // of all B·T
  let src = (i / half) * 2u * half + j;
  let first = qkv[src];
  let second = qkv[src + half];

  let angle = min(positions[token], params.P - 1u) * 2u * half + j;
  let cosine = table[angle];
  let sine = table[angle + half];
  let rotated_first = first * cosine - second * sine;
  let rotated_second = second * cosine + first * sine;
  if (head < params.H) {
    let dst = (token * params.H + head) * 2u * half + j;
    q[dst] = rotated_first;
    q[dst + half] = rotated_second;
    return;
  }

  let place = past[0] + token % params.T;
  if (place >= params.C) {
    return;
  }
  let stored = (head - params.H) % params.Hkv;
  let dst = (((token / params.T) * params.Hkv + stored) * params.C + place) * 2u * half + j;
  if (head < params.H + params.Hkv) {
    keys[dst] = encode(rotated_first);
    keys[dst + half] = encode(rotated_second);
  } else {
    values[dst] = encode(first);
    values[dst + half] = encode(second);
  }
}
`,
  "elementwise/activation": `// y = activate(x), elementwise.
//
// x: f32[n]  ->  y: f32[n]
// An invocation takes items_per_thread groups of four elements, WG groups apart, by twos; the last may reach into the padding
// every buffer has up to 16 bytes.
// Dispatch: ceil(ceil(n / 4) / (WG · items_per_thread)), folded. Needs: nothing.
// @use activation
override WG: u32 = 64;

struct Params {
  groups: u32, // ceil(n / 4)
  items_per_thread: u32, // groups, an even number
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

fn activate_four(v: vec4<f32>) -> vec4<f32> {
  return vec4<f32>(activate(v.x), activate(v.y), activate(v.z), activate(v.w));
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let workgroup = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let end = min((workgroup + 1u) * WG * params.items_per_thread, params.groups);
  for (var i = workgroup * WG * params.items_per_thread + lane; i < end; i += 2u * WG) {
    let j = min(i + WG, end - 1u); // at the end perhaps another thread's too, which stores the same
    let v = activate_four(x[i]);
    let w = activate_four(x[j]);
    y[i] = v;
    y[j] = w;
  }
}
`,
  "elementwise/add": `// y = a + b, elementwise; b is repeated, which broadcasts it over a's leading dimensions.
//
// a: f32[n]  b: f32[m], n a multiple of m  ->  y: f32[n]
// An invocation takes items_per_thread groups of four elements, WG groups apart; the last may reach into the padding every
// buffer has up to 16 bytes. b is loaded by single elements, as m need not be a multiple of 4.
// Dispatch: ceil(ceil(n / 4) / (WG · items_per_thread)), folded. Needs: nothing.
override WG: u32 = 64;

struct Params {
  groups: u32, // ceil(n / 4)
  items_per_thread: u32, // groups
  m: u32,
}

@group(0) @binding(0) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

fn after(j: u32) -> u32 {
  return select(j + 1u, 0u, j + 1u == params.m);
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let workgroup = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let end = min((workgroup + 1u) * WG * params.items_per_thread, params.groups);
  for (var i = workgroup * WG * params.items_per_thread + lane; i < end; i += WG) {
    let j0 = (i * 4u) % params.m;
    let j1 = after(j0);
    let j2 = after(j1);
    let j3 = after(j2);
    y[i] = a[i] + vec4<f32>(b[j0], b[j1], b[j2], b[j3]);
  }
}
`,
  "elementwise/edit_scores": `// Repetition penalty and bans: y = y penalty where y < 0, y / penalty elsewhere, at the first params.penalised of places; -∞
// at the others.
//
// places: u32[n], all different, into y laid flat  ->  y: f32[R, V], as bits, changed in place
// One invocation a place. Infinities and NaN are not penalised: multiplying would not change them.
// Dispatch: ceil(n / WG), folded. Needs: nothing.
// Source: transformers 5.18, RepetitionPenaltyLogitsProcessor in generation/logits_process.py.
override WG: u32 = 64;

struct Params {
  n: u32,
  penalised: u32,
  size: u32,
  penalty: f32,
}

@group(0) @binding(0) var<storage, read> places: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  if (i >= params.n || places[i] >= params.size) {
    return;
  }
  let place = places[i];
  let bits = y[place];
  if (i >= params.penalised) {
    y[place] = 0xff800000u;
  } else if ((bits & 0x7f800000u) != 0x7f800000u) {
    let score = bitcast<f32>(bits);
    y[place] = bitcast<u32>(select(score / params.penalty, score * params.penalty, score < 0.0));
  }
}
`,
  "elementwise/gated_activation": `// y = activate(gate) * up, elementwise: a gated linear unit.
//
// gate, up: f32[n]  ->  y: f32[n]
// An invocation takes items_per_thread groups of four elements, WG groups apart; the last may reach into the padding every
// buffer has up to 16 bytes.
// Dispatch: ceil(ceil(n / 4) / (WG · items_per_thread)), folded. Needs: nothing.
// Source: Shazeer 2020, GLU Variants Improve Transformer; transformers' LlamaMLP and T5DenseGatedActDense.
// @use activation
override WG: u32 = 64;

struct Params {
  groups: u32, // ceil(n / 4)
  items_per_thread: u32, // groups
}

@group(0) @binding(0) var<storage, read> gate: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> up: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let workgroup = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let end = min((workgroup + 1u) * WG * params.items_per_thread, params.groups);
  for (var i = workgroup * WG * params.items_per_thread + lane; i < end; i += WG) {
    let g = gate[i];
    y[i] = vec4<f32>(activate(g.x), activate(g.y), activate(g.z), activate(g.w)) * up[i];
  }
}
`,
  "elementwise/increment": `// x += by, in place: advances counters on the GPU from step to step, without the host.
//
// x: u32[n]
// One invocation an element.
// Dispatch: ceil(n / WG), folded. Needs: nothing.
override WG: u32 = 64;

struct Params {
  size: u32, // n
  by: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  if (i >= params.size) {
    return;
  }
  x[i] += params.by;
}
`,
  "elementwise/scale": `// y = factor · x, elementwise.
//
// x: f32[n]  ->  y: f32[n]
// An invocation takes items_per_thread groups of four elements, WG groups apart; the last may reach into the padding every
// buffer has up to 16 bytes.
// Dispatch: ceil(ceil(n / 4) / (WG · items_per_thread)), folded. Needs: nothing.
override WG: u32 = 64;

struct Params {
  groups: u32, // ceil(n / 4)
  items_per_thread: u32, // groups
  factor: f32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let workgroup = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  let end = min((workgroup + 1u) * WG * params.items_per_thread, params.groups);
  for (var i = workgroup * WG * params.items_per_thread + lane; i < end; i += WG) {
    y[i] = params.factor * x[i];
  }
}
`,
  "gather/bicubic": `// y[i, j, c] = Σ_p Σ_q wy[p] · wx[q] · x[fy - 1 + p, fx - 1 + q, c]: bicubic interpolation of a grid of vectors, p and q from
// 0 to 3.
//
// x: f32[h, w, D]  ->  y: f32[H, W, D]
// The grids' outer edges coincide, so that the centre of y's row i is x's row (i + 0.5) · h / H - 0.5 =: fy + ty. wy are the
// weights of the four rows around it, Keys' cubic with a = -0.75; rows beyond an edge are the edge's. Columns likewise. There
// is no antialiasing. One invocation an element of y.
// Dispatch: ceil(H·W·D / WG), folded. Needs: nothing.
// Source: torch.nn.functional.interpolate(mode="bicubic", align_corners=False), channels last; Keys 1981.
override WG: u32 = 64;

const A: f32 = -0.75;

struct Params {
  size: u32,
  h: u32,
  w: u32,
  W: u32,
  D: u32,
  // h / H and w / W.
  scale_y: f32,
  scale_x: f32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

// Weights of the points at distances 1 + t, t, 1 - t and 2 - t, for t from 0 to 1.
fn weights(t: f32) -> vec4<f32> {
  return vec4<f32>(outer(1 + t), inner(t), inner(1 - t), outer(2 - t));
}

// Of a point at distance d, at most 1.
fn inner(d: f32) -> f32 {
  return ((A + 2) * d - (A + 3)) * d * d + 1;
}

// Of a point at distance d, from 1 to 2.
fn outer(d: f32) -> f32 {
  return ((A * d - 5 * A) * d + 8 * A) * d - 4 * A;
}

// Four neighbouring rows or columns of n, the second of them first; beyond an edge, the edge.
fn taps(first: i32, n: u32) -> vec4<u32> {
  return vec4<u32>(clamp(vec4<i32>(first - 1, first, first + 1, first + 2), vec4<i32>(0), vec4<i32>(i32(n) - 1)));
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  if (i >= params.size) {
    return;
  }
  let c = i % params.D;
  let column = (i / params.D) % params.W;
  let row = i / params.D / params.W;

  let sy = (f32(row) + 0.5) * params.scale_y - 0.5;
  let sx = (f32(column) + 0.5) * params.scale_x - 0.5;
  let wy = weights(sy - floor(sy));
  let wx = weights(sx - floor(sx));
  let ys = taps(i32(floor(sy)), params.h);
  let xs = taps(i32(floor(sx)), params.w);

  var sum = 0.0;
  for (var p = 0; p < 4; p++) {
    var across = 0.0;
    for (var q = 0; q < 4; q++) {
      across += wx[q] * x[(ys[p] * params.w + xs[q]) * params.D + c];
    }
    sum += wy[p] * across;
  }
  y[i] = sum;
}
`,
  "gather/copy": `// y[dst(i)] = x[src(i)]: copies a strided view to a strided view. Bits are copied, not numbers, so it serves f32 and u32 and
// keeps NaN payloads.
//
// x: u32[any]  ->  y: u32[any], of which only the destination is written
// Both are rows of n elements, in up to five dimensions [n0, n1, n2, n3, n4]; an element is a number, or four contiguous ones.
// Long rows are cut into chunks. A worker, params.lanes neighbouring threads, moves params.items_per_thread chunks, one after
// the other: finding a chunk takes divisions, so only the first is found by them, and the others by counting. Strides and
// offsets count elements.
// Dispatch: ceil(ceil(chunks / items_per_thread) / (WG / lanes)), folded. Needs: nothing.
// @use element = element_u32x4
override WG: u32 = 64;

struct Params {
  chunks: u32, // n0·n1·n2·n3·n4·chunks_per_row
  items_per_thread: u32, // chunks, one after the other
  lanes: u32, // divides WG
  n: u32,
  chunk_size: u32, // elements
  chunks_per_row: u32,
  n1: u32,
  n2: u32,
  n3: u32,
  n4: u32,
  x_offset: u32,
  x0: u32,
  x1: u32,
  x2: u32,
  x3: u32,
  x4: u32,
  x_step: u32, // between the elements of a row
  y_offset: u32,
  y0: u32,
  y1: u32,
  y2: u32,
  y3: u32,
  y4: u32,
  y_step: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read_write> y: array<Element>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let worker = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * (WG / params.lanes) + lane / params.lanes;
  let first = worker * params.items_per_thread;
  let end = min(first + params.items_per_thread, params.chunks);

  var chunk = first % params.chunks_per_row;
  let r4 = first / params.chunks_per_row;
  var i4 = r4 % params.n4;
  let r3 = r4 / params.n4;
  var i3 = r3 % params.n3;
  let r2 = r3 / params.n3;
  var i2 = r2 % params.n2;
  let r1 = r2 / params.n2;
  var i1 = r1 % params.n1;
  var i0 = r1 / params.n1;

  for (var item = first; item < end; item++) {
    let src = params.x_offset + i0 * params.x0 + i1 * params.x1 + i2 * params.x2 + i3 * params.x3 + i4 * params.x4;
    let dst = params.y_offset + i0 * params.y0 + i1 * params.y1 + i2 * params.y2 + i3 * params.y3 + i4 * params.y4;
    let stop = min((chunk + 1u) * params.chunk_size, params.n);
    for (var c = chunk * params.chunk_size + lane % params.lanes; c < stop; c += params.lanes) {
      y[dst + c * params.y_step] = x[src + c * params.x_step];
    }

    chunk++;
    i4 += u32(chunk == params.chunks_per_row);
    chunk = select(chunk, 0u, chunk == params.chunks_per_row);
    i3 += u32(i4 == params.n4);
    i4 = select(i4, 0u, i4 == params.n4);
    i2 += u32(i3 == params.n3);
    i3 = select(i3, 0u, i3 == params.n3);
    i1 += u32(i2 == params.n2);
    i2 = select(i2, 0u, i2 == params.n2);
    i0 += u32(i1 == params.n1);
    i1 = select(i1, 0u, i1 == params.n1);
  }
}
`,
  "gather/embedding": `// y[t] = weight[ids[t]]: token embeddings from a table, or from a shard of its rows.
//
// ids: u32[n] weight: [V, D] by a dequantizing loader, rows first_row … first_row + rows - 1 of it -> y: f32[n, D]
// One invocation for four numbers of a row. Each shard of the table has its own launch, which writes only rows of its ids; the
// first shard writes zeros for an id beyond the table.
// Dispatch: ceil(n · ceil(D / 4) / WG), folded. Needs: nothing.
// @use weight = weight_f32
override WG: u32 = 64;

struct Params {
  n: u32,
  V: u32,
  D: u32,
  first_row: u32,
  rows: u32,
}

@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  let K4 = (params.D + 3u) / 4u;
  let t = i / K4;
  if (t >= params.n) {
    return;
  }
  let id = ids[t];
  let row = id - params.first_row; // below first_row this wraps to more than any number of rows
  let unknown = id >= params.V;
  if (select(row >= params.rows, params.first_row != 0u, unknown)) {
    return;
  }
  let k = i % K4;
  var values = vec4<f32>(0.0);
  if (!unknown) {
    values = load_weight(row, k, K4);
  }
  for (var c = 0u; c < min(4u, params.D - k * 4u); c++) {
    y[t * params.D + k * 4u + c] = values[c];
  }
}
`,
  "gather/masked_scatter": `// y[l] = features[source[l] - 1] where source[l] > 0, else x[l]: replaces placeholders by image features. Bits are copied.
//
// x: u32[R, D]  features: u32[n, D]  source: u32[R]  ->  y: u32[R, D]; an element is a number or, where D allows it, four
// Workers move chunks of rows, as in copy.wgsl. A source beyond n keeps x.
// Dispatch: ceil(ceil(chunks / items_per_thread) / (WG / lanes)), folded. Needs: nothing.
// Source: torch.Tensor.masked_scatter with the running count of the mask made on the host.
// @use element = element_u32x4
override WG: u32 = 64;

struct Params {
  chunks: u32, // R·chunks_per_row
  items_per_thread: u32, // chunks, one after the other
  lanes: u32, // divides WG
  D: u32, // elements
  chunk_size: u32, // elements
  chunks_per_row: u32,
  n: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> features: array<Element>;
@group(0) @binding(2) var<storage, read> source: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<Element>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let worker = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * (WG / params.lanes) + lane / params.lanes;
  let end = min((worker + 1u) * params.items_per_thread, params.chunks);
  for (var item = worker * params.items_per_thread; item < end; item++) {
    let row = item / params.chunks_per_row;
    let first = (item % params.chunks_per_row) * params.chunk_size;
    let stop = min(first + params.chunk_size, params.D);
    let chosen = source[row];
    if (chosen > 0u && chosen <= params.n) {
      for (var c = first + lane % params.lanes; c < stop; c += params.lanes) {
        y[row * params.D + c] = features[(chosen - 1u) * params.D + c];
      }
    } else {
      for (var c = first + lane % params.lanes; c < stop; c += params.lanes) {
        y[row * params.D + c] = x[row * params.D + c];
      }
    }
  }
}
`,
  "gather/parts/element_u32": `// The element that a kernel moves: one number. Serves any width, offset and stride.
alias Element = u32;
`,
  "gather/parts/element_u32x4": `// The element that a kernel moves: four neighbouring numbers, where widths, offsets and strides are multiples of 4.
// @slot element: Element
alias Element = vec4<u32>;
`,
  "gather/relative_bias": `// y[h, t, s] = table[P - 1 + s - (past + t), h]: the relative position bias of the distance from query past + t to key s, for
// every head. A distance beyond the table counts as its last.
//
// table: f32[2P - 1, H], by distance from -(P - 1) to P - 1  past: u32[1]  ->  y: f32[H, T, S]
// One invocation an element. The queries' position is read from a buffer, so that the launch is the same at every step.
// Dispatch: ceil(H·T·S / WG), folded. Needs: nothing.
// Source: Raffel et al. 2020, section 2.1; transformers' T5Attention.compute_bias.
override WG: u32 = 64;

struct Params {
  size: u32, // H·T·S
  H: u32,
  T: u32,
  S: u32,
  P: u32,
}

@group(0) @binding(0) var<storage, read> table: array<f32>;
@group(0) @binding(1) var<storage, read> past: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  if (i >= params.size) {
    return;
  }
  let s = i % params.S;
  let row = i / params.S;
  let t = row % params.T;
  let h = row / params.T;
  let furthest = i32(params.P) - 1;
  let distance = clamp(i32(s) - i32(past[0] + t), -furthest, furthest);
  y[i] = table[u32(distance + furthest) * params.H + h];
}
`,
  "gather/take_rows": `// y[i] = x[rows[i]]: gathers rows. Bits are copied.
//
// x: u32[R, D]  rows: u32[rows]  ->  y: u32[rows, D]; an element is a number or, where D allows it, four of them
// Workers move chunks of rows, as in copy.wgsl. A row beyond R gives zeros.
// Dispatch: ceil(ceil(chunks / items_per_thread) / (WG / lanes)), folded. Needs: nothing.
// Source: torch.index_select along dimension 0.
// @use element = element_u32x4
override WG: u32 = 64;

struct Params {
  chunks: u32, // rows·chunks_per_row
  items_per_thread: u32, // chunks, one after the other
  lanes: u32, // divides WG
  D: u32, // elements
  chunk_size: u32, // elements
  chunks_per_row: u32,
  R: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<Element>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let worker = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * (WG / params.lanes) + lane / params.lanes;
  let end = min((worker + 1u) * params.items_per_thread, params.chunks);
  for (var item = worker * params.items_per_thread; item < end; item++) {
    let i = item / params.chunks_per_row;
    let first = (item % params.chunks_per_row) * params.chunk_size;
    let stop = min(first + params.chunk_size, params.D);
    let row = rows[i];
    if (row < params.R) {
      for (var c = first + lane % params.lanes; c < stop; c += params.lanes) {
        y[i * params.D + c] = x[row * params.D + c];
      }
    } else {
      for (var c = first + lane % params.lanes; c < stop; c += params.lanes) {
        y[i * params.D + c] = Element();
      }
    }
  }
}
`,
  "lib/activation": `// The activation of a feed-forward layer: a kernel includes it by "@use activation" and calls activate(x). ACTIVATION is a
// code of src/tensor/activation.ts; as an override, it leaves only one branch in the pipeline. NaN in, NaN out (where the
// driver computes with NaN).
// @use math
override ACTIVATION: u32 = 0;

fn activate(x: f32) -> f32 {
  switch ACTIVATION {
    case 1u: {
      return gelu(x);
    }
    case 2u: {
      return gelu_tanh(x);
    }
    case 3u: {
      return select(x, 0.0, x < 0.0); // max(x, 0) would turn NaN into 0
    }
    case 4u: {
      return silu(x);
    }
    case 5u: {
      return x * sigmoid(1.702 * x);
    }
    default: {
      return x;
    }
  }
}
`,
  "lib/candidate": `// The candidate of a search for the largest number: the number as an order-preserving integer, and its index. Of equal keys
// the lowest index is first.
struct Candidate {
  key: u32,
  place: u32,
}

fn is_before(a: Candidate, b: Candidate) -> bool {
  return a.key > b.key || (a.key == b.key && a.place < b.place);
}
`,
  "lib/math": `// Functions whose WGSL builtins are missing or not accurate enough on every driver (exp is up to 17 ULP off on software
// adapters, tanh loses relative accuracy near 0 and is NaN beyond 88 on one, log may be off by 2^-21 near 1). Coefficients:
// our own Chebyshev fits in 40 digits, with errors measured in f32 over the whole range. Polynomials are evaluated in pairs,
// for shorter dependency chains: software adapters do not hide latency.

// e^x within 2 ULP where the result is a normal number; 0 below, +max above.
fn exp_accurate(x: f32) -> f32 {
  // Not clamp(), which turns NaN into a number.
  let clamped = select(select(x, -87.3, x < -87.3), 88.7, x > 88.7);
  let k = exponent_of(clamped);
  // 2^k in two factors, because k = 128 has no f32 of its own.
  let half = k >> 1u;
  let y = exp_rest(clamped, k) * power_of_two(half) * power_of_two(k - half);
  return select(y, 0.0, x < -87.3);
}

// The same for x <= 0, in fewer steps.
fn exp_negative(x: f32) -> f32 {
  let clamped = select(x, -87.3, x < -87.3);
  let k = exponent_of(clamped);
  return select(exp_rest(clamped, k) * power_of_two(k), 0.0, x < -87.3);
}

// The integer nearest to log2 e^x. Adding 1.5·2^23 rounds to it and leaves it in the lowest bits: round() and i32() cost
// software adapters more than the polynomial. The sum cannot be optimised away, as its bits are used.
fn exponent_of(x: f32) -> i32 {
  return bitcast<i32>(x * 1.4426950408889634 + 12582912.0) - 0x4b400000;
}

// e^x / 2^k
fn exp_rest(x: f32, k: i32) -> f32 {
  // ln 2 in two parts: k times the first is exact.
  let r = (x - f32(k) * 0.693145751953125) - f32(k) * 1.428606765330187e-6;
  let r2 = r * r;
  let high = (0.04166635 + r * 0.008375126) + r2 * 0.0013941108;
  return 1.0 + (r + r2 * ((0.5 + r * 0.16666416) + r2 * high));
}

// ln x within 1 ULP for normal x > 0; nothing useful for other x.
fn log_accurate(x: f32) -> f32 {
  // x = (1 + f) 2^k with 1 + f from √½ to √2: 0x3f3504f3 is √½.
  let k = (bitcast<i32>(x) - 0x3f3504f3) >> 23u;
  let f = bitcast<f32>(bitcast<i32>(x) - (k << 23u)) - 1.0;
  // ln(1 + f) = 2 artanh s = 2s + s R, ordered so that f alone is exact and the rest corrects it.
  let s = f / (2.0 + f);
  let z = s * s;
  let R = z * (0.66666687 + z * (0.39988756 + z * 0.29580986));
  let h = 0.5 * f * f;
  return f32(k) * 0.693145751953125 + (f - (h - (s * (h + R) + f32(k) * 1.428606765330187e-6)));
}

fn power_of_two(k: i32) -> f32 {
  return bitcast<f32>(u32(k + 127) << 23u);
}

// x Φ(x), the exact GELU of ViT, BERT and InstructBLIP's T5: within 1 ULP of the larger of x and its result. It is max(x, 0) -
// |x| Φ(-|x|), and what is subtracted is |x| / 2 divided by the 16th power of a polynomial 1 + r, which grows as fast as
// Φ(-|x|) falls. r is kept separate from 1 while it is squared, (1 + r)² = 1 + r (2 + r): near 0 adding 1 would lose its
// digits. The form is Abramowitz and Stegun's 7.1.28 for erf.
fn gelu(x: f32) -> f32 {
  let a = select(abs(x), 10.0, abs(x) > 10.0); // for infinity the quotient would be NaN; a NaN is kept by x
  let a2 = a * a;
  let low = (0.04986783 + a * 0.021137126) + a2 * (0.0032867347 + a * 3.0677184e-5);
  let high = (4.876122e-5 + a * 8.273344e-6) + a2 * (a * 1.717978e-7 - 1.2928993e-6);
  let r = a * (low + (a2 * a2) * high);
  let r2 = r * (2.0 + r);
  let r4 = r2 * (2.0 + r2);
  let r8 = r4 * (2.0 + r4);
  return select(x, 0.0, x < 0.0) - 0.5 * a / (1.0 + r8 * (2.0 + r8));
}

// 1 / (1 + e^-x)
fn sigmoid(x: f32) -> f32 {
  let e = exp_negative(-abs(x));
  return select(e, 1.0, x >= 0.0) / (1.0 + e);
}

// The tanh approximation, "gelu_new": 0.5x(1 + tanh u) = x σ(2u).
fn gelu_tanh(x: f32) -> f32 {
  return x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x));
}

fn silu(x: f32) -> f32 {
  return x * sigmoid(x);
}
`,
  "lib/reduce_subgroups": `// Reductions over the workgroup's threads, as reduce_tree.wgsl has them: within each subgroup by its own instructions, then
// among subgroups through shared memory, with two barriers in all. All threads call it. Neither a subgroup's size nor its
// threads are known, and its index in the workgroup not in every browser. So every thread writes to its own element, and each
// subgroup reads all elements, as many at a time as it has threads. A sum goes to another rank's element in each subgroup: each
// thread then adds few of them, where rank 0 would add all, one after another, with a rounding each.
// @use candidate
enable subgroups;

var<workgroup> partial: array<f32, WG>;
var<workgroup> partial_pairs: array<vec2<f32>, WG>;
var<workgroup> candidates: array<Candidate, WG>;

fn sum_over_threads(lane: u32, value: f32) -> f32 {
  let rank = subgroupExclusiveAdd(1u);
  let size = subgroupAdd(1u); // less than subgroup_size in one that is not full
  let sum = subgroupAdd(value);
  partial[lane] = select(0.0, sum, rank == subgroupBroadcastFirst(lane / size) % size);
  workgroupBarrier();
  var rest = 0.0;
  for (var i = rank; i < WG; i += size) {
    rest += partial[i];
  }
  workgroupBarrier(); // before the next use overwrites it
  return subgroupAdd(rest);
}

fn sums_over_threads(lane: u32, pair: vec2<f32>) -> vec2<f32> {
  let rank = subgroupExclusiveAdd(1u);
  let size = subgroupAdd(1u);
  let sum = subgroupAdd(pair);
  partial_pairs[lane] = select(vec2<f32>(), sum, rank == subgroupBroadcastFirst(lane / size) % size);
  workgroupBarrier();
  var rest = vec2<f32>();
  for (var i = rank; i < WG; i += size) {
    rest += partial_pairs[i];
  }
  workgroupBarrier();
  return subgroupAdd(rest);
}

fn max_over_threads(lane: u32, value: f32) -> f32 {
  let rank = subgroupExclusiveAdd(1u);
  let size = subgroupAdd(1u);
  var largest = subgroupMax(value);
  partial[lane] = largest;
  workgroupBarrier();
  for (var i = rank; i < WG; i += size) {
    largest = max(largest, partial[i]);
  }
  workgroupBarrier();
  return subgroupMax(largest);
}

fn best_over_threads(lane: u32, candidate: Candidate) -> Candidate {
  let rank = subgroupExclusiveAdd(1u);
  let size = subgroupAdd(1u);
  var best = best_of_subgroup(candidate);
  candidates[lane] = best;
  workgroupBarrier();
  for (var i = rank; i < WG; i += size) {
    if (is_before(candidates[i], best)) {
      best = candidates[i];
    }
  }
  workgroupBarrier();
  return best_of_subgroup(best);
}

fn best_of_subgroup(candidate: Candidate) -> Candidate {
  let key = subgroupMax(candidate.key);
  return Candidate(key, subgroupMin(select(0xffffffffu, candidate.place, candidate.key == key)));
}
`,
  "lib/reduce_tree": `// Reductions over the workgroup's threads, whose result all of them get: sum and maximum of a number, sums of two numbers at
// once, and the best candidate. As a tree in shared memory. WG is a power of two, and all threads call it.
// @slot reduce: sum_over_threads(lane: u32, value: f32) -> f32, sums_over_threads(lane: u32, pair: vec2<f32>) -> vec2<f32>
// @slot reduce: max_over_threads(lane: u32, value: f32) -> f32, best_over_threads(lane: u32, candidate: Candidate) -> Candidate
// @slot reduce: Candidate
// @use candidate
var<workgroup> partial: array<f32, WG>;
var<workgroup> partial_pairs: array<vec2<f32>, WG>;
var<workgroup> candidates: array<Candidate, WG>;

fn sum_over_threads(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] += partial[lane + half];
    }
    workgroupBarrier();
  }
  let total = partial[0];
  workgroupBarrier(); // before the next use overwrites it
  return total;
}

fn sums_over_threads(lane: u32, pair: vec2<f32>) -> vec2<f32> {
  partial_pairs[lane] = pair;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial_pairs[lane] += partial_pairs[lane + half];
    }
    workgroupBarrier();
  }
  let total = partial_pairs[0];
  workgroupBarrier();
  return total;
}

fn max_over_threads(lane: u32, value: f32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      partial[lane] = max(partial[lane], partial[lane + half]);
    }
    workgroupBarrier();
  }
  let largest = partial[0];
  workgroupBarrier();
  return largest;
}

fn best_over_threads(lane: u32, candidate: Candidate) -> Candidate {
  candidates[lane] = candidate;
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half && is_before(candidates[lane + half], candidates[lane])) {
      candidates[lane] = candidates[lane + half];
    }
    workgroupBarrier();
  }
  let best = candidates[0];
  workgroupBarrier();
  return best;
}
`,
  "lib/subgroup_reduce": `// Reductions over the SG lanes of a subgroup, whose result all of them get: the kernel has "enable subgroups;" and the
// override SG, a power of two. Software adapters run subgroupAdd and subgroupMax lane by lane, a shuffle in one instruction.
fn sum_over_lanes(value: f32) -> f32 {
  var sum = value;
  for (var apart = 1u; apart < SG; apart *= 2u) {
    sum += subgroupShuffleXor(sum, apart);
  }
  return sum;
}

fn max_over_lanes(value: f32) -> f32 {
  var largest = value;
  for (var apart = 1u; apart < SG; apart *= 2u) {
    largest = max(largest, subgroupShuffleXor(largest, apart));
  }
  return largest;
}
`,
  "lib/unquantized": `// Shared by the loaders of unquantized weights (f32, f16, bf16): a code is the number itself, a block is one word, its scale 1.
const WORD = 1u;
const BLOCK = 1u;

fn block_scale(row: u32, block: u32, K4: u32) -> vec2<f32> {
  return vec2<f32>(1.0, 0.0);
}

fn load_dequantized(scale: vec2<f32>, row: u32, group: u32, K4: u32) -> vec4<f32> {
  return load_weight(row, group, K4);
}

fn dequantize(scale: vec2<f32>, codes: vec4<f32>) -> vec4<f32> {
  return codes;
}

fn scale_dot(row: u32, block: u32, K4: u32, dot_codes: f32, sum_x: f32) -> f32 {
  return dot_codes;
}
`,
  "lib/weight_bf16": `// Dequantizing loader of bf16 weights, two in a u32. A bf16 is the upper half of an f32: widening is a shift.
// @use unquantized
@group(0) @binding(1) var<storage, read> weight: array<vec2<u32>>;

alias Packed = vec2<u32>;

fn load_weight(row: u32, group: u32, K4: u32) -> vec4<f32> {
  return widen(load_packed(row, group, K4));
}

fn load_packed(row: u32, word: u32, K4: u32) -> Packed {
  return weight[row * K4 + word];
}

fn unpack(bits: Packed) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(widen(bits));
}

fn widen(bits: Packed) -> vec4<f32> {
  return bitcast<vec4<f32>>(vec4<u32>(bits.x << 16u, bits.x & 0xffff0000u, bits.y << 16u, bits.y & 0xffff0000u));
}
`,
  "lib/weight_f16": `// Dequantizing loader of f16 weights, two in a u32. unpack2x16float needs no GPU feature, and is as fast as native f16 loads.
// @use unquantized
@group(0) @binding(1) var<storage, read> weight: array<vec2<u32>>;

alias Packed = vec2<u32>;

fn load_weight(row: u32, group: u32, K4: u32) -> vec4<f32> {
  return widen(load_packed(row, group, K4));
}

fn load_packed(row: u32, word: u32, K4: u32) -> Packed {
  return weight[row * K4 + word];
}

fn unpack(bits: Packed) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(widen(bits));
}

fn widen(bits: Packed) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(bits.x), unpack2x16float(bits.y));
}
`,
  "lib/weight_f32": `// Weight loader, f32. A weight is [N, K] with rows padded to K4 = ceil(K / 4) groups of four. Every loader has
//   load_weight          a group of a row, dequantized, for kernels that read groups in any order
//   block_scale          a block's scale and minimum, w = scale.x · code + scale.y, for kernels that keep them
//   load_dequantized     a group, dequantized by its block's scale
//   load_packed, unpack  a word as it is stored, of which BLOCK share a scale; and the WORD groups of codes in it
//   dequantize           a group, from its codes and its block's scale
//   scale_dot            Σ x · w over some of a block, from dot_codes = Σ x · code and sum_x = Σ x
// @slot weight: weight, WORD, BLOCK, load_weight(row: u32, group: u32, K4: u32) -> vec4<f32>
// @slot weight: block_scale(row: u32, block: u32, K4: u32) -> vec2<f32>
// @slot weight: load_dequantized(scale: vec2<f32>, row: u32, group: u32, K4: u32) -> vec4<f32>
// @slot weight: Packed, load_packed(row: u32, word: u32, K4: u32) -> Packed, unpack(packed: Packed) -> array<vec4<f32>, WORD>
// @slot weight: dequantize(scale: vec2<f32>, codes: vec4<f32>) -> vec4<f32>
// @slot weight: scale_dot(row: u32, block: u32, K4: u32, dot_codes: f32, sum_x: f32) -> f32
// @use unquantized
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;

alias Packed = vec4<f32>;

fn load_weight(row: u32, group: u32, K4: u32) -> vec4<f32> {
  return weight[row * K4 + group];
}

fn load_packed(row: u32, word: u32, K4: u32) -> Packed {
  return weight[row * K4 + word];
}

fn unpack(packed: Packed) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(packed);
}
`,
  "lib/weight_int4": `// Weight loader, int4 in blocks of 32 numbers with a scale and a minimum each: w = scale · code + min. A row is its codes, then
// a u32 for each block: scale and min as bf16. Eight codes share a u32, the first four in the low 4 bits of its bytes, so that
// each four are multiplied by neighbouring numbers of x; see tensor/quantize.ts. What each function is for: weight_f32.
@group(0) @binding(1) var<storage, read> weight: array<u32>;

const WORD = 2u;
const BLOCK = 4u;

alias Packed = u32;

fn load_weight(row: u32, group: u32, K4: u32) -> vec4<f32> {
  return load_dequantized(block_scale(row, group / (WORD * BLOCK), K4), row, group, K4);
}

fn block_scale(row: u32, block: u32, K4: u32) -> vec2<f32> {
  let bits = weight[start_of(row, K4) + (K4 + 7u) / 8u * BLOCK + block];
  return bitcast<vec2<f32>>(vec2<u32>(bits << 16u, bits & 0xffff0000u));
}

fn load_dequantized(scale: vec2<f32>, row: u32, group: u32, K4: u32) -> vec4<f32> {
  let codes = weight[start_of(row, K4) + group / 2u] >> (4u * (group % 2u));
  return dequantize(scale, vec4<f32>(unpack4xU8(codes & 0x0f0f0f0fu)));
}

fn dequantize(scale: vec2<f32>, codes: vec4<f32>) -> vec4<f32> {
  return scale.x * codes + scale.y;
}

fn load_packed(row: u32, word: u32, K4: u32) -> Packed {
  return weight[start_of(row, K4) + word];
}

fn unpack(codes: Packed) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(
    vec4<f32>(unpack4xU8(codes & 0x0f0f0f0fu)),
    vec4<f32>(unpack4xU8((codes >> 4u) & 0x0f0f0f0fu)),
  );
}

fn scale_dot(row: u32, block: u32, K4: u32, dot_codes: f32, sum_x: f32) -> f32 {
  let scale = block_scale(row, block, K4);
  return scale.x * dot_codes + scale.y * sum_x;
}

fn start_of(row: u32, K4: u32) -> u32 {
  return row * ((K4 + 7u) / 8u) * (BLOCK + 1u);
}
`,
  "lib/weight_int8": `// Weight loader, int8 in blocks of 32 numbers with a scale each: w = scale · code. A row is its codes, four in a u32, then
// its scales, two bf16 in a u32; see tensor/quantize.ts. What each function is for: weight_f32.
@group(0) @binding(1) var<storage, read> weight: array<u32>;

const WORD = 1u;
const BLOCK = 8u;

alias Packed = u32;

fn load_weight(row: u32, group: u32, K4: u32) -> vec4<f32> {
  return load_dequantized(block_scale(row, group / BLOCK, K4), row, group, K4);
}

fn block_scale(row: u32, block: u32, K4: u32) -> vec2<f32> {
  let blocks = (K4 + BLOCK - 1u) / BLOCK;
  let pair = weight[start_of(row, K4) + BLOCK * blocks + block / 2u];
  return vec2<f32>(bitcast<f32>(select(pair << 16u, pair & 0xffff0000u, block % 2u == 1u)), 0.0);
}

fn load_dequantized(scale: vec2<f32>, row: u32, group: u32, K4: u32) -> vec4<f32> {
  return dequantize(scale, vec4<f32>(unpack4xI8(load_packed(row, group, K4))));
}

fn load_packed(row: u32, word: u32, K4: u32) -> Packed {
  return weight[start_of(row, K4) + word];
}

fn unpack(codes: Packed) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(vec4<f32>(unpack4xI8(codes)));
}

fn dequantize(scale: vec2<f32>, codes: vec4<f32>) -> vec4<f32> {
  return scale.x * codes;
}

fn scale_dot(row: u32, block: u32, K4: u32, dot_codes: f32, sum_x: f32) -> f32 {
  return block_scale(row, block, K4).x * dot_codes;
}

fn start_of(row: u32, K4: u32) -> u32 {
  let blocks = (K4 + BLOCK - 1u) / BLOCK;
  return row * (BLOCK * blocks + (blocks + 1u) / 2u);
}
`,
  "matmul/matmul_combine": `// y = activate(Σₚ x[p] + bias): the second step of split-K. Adds the partial sums that matmul_tile computed, one for each split
// of K, and applies the epilogue.
//
// x: f32[SPLITS, M, FACTORS, N]  weight: bound, not read  bias: f32[N]  ->  y: f32[M, N]
// One invocation an element of y. It loads all its partial sums before it adds them, so that their latencies overlap.
// Dispatch: ceil(M·N / WG), folded. Needs: nothing.
// @use matmul
override WG: u32 = 64;
override SPLITS: u32 = 2; // at most 8

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<u32>;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  let row = i / params.N;
  let column = i % params.N;
  if (row >= params.M) {
    return;
  }
  var partials: array<vec2<f32>, 8>; // partial sums of the first factor and of the last
  for (var p = 0u; p < SPLITS; p++) {
    let at = (p * params.M + row) * FACTORS;
    partials[p] = vec2<f32>(x[at * params.N + column], x[(at + FACTORS - 1u) * params.N + column]);
  }
  var sum = vec2<f32>();
  for (var p = 0u; p < SPLITS; p++) {
    sum += partials[p];
  }
  let biases = vec2<f32>(bias_of(column, 0u), bias_of(column, FACTORS - 1u));
  store(row, column, sum.x + biases.x, sum.y + biases.y);
}
`,
  "matmul/matmul_naive": `// y[m, n] = Σₖ x[m, k] W[n, k] + bias[n], as torch.nn.Linear: the reference kernel, to read first. The other matmul_* and
// matvec_* kernels compute the same faster, with weights of every dtype and an epilogue. Tests compare them with this one.
//
// x: f32[M, K]  weight: f32[N, K]  bias: f32[N]  ->  y: f32[M, N]
// One invocation an element of y.
// Dispatch: [ceil(N / 8), ceil(M / 8), 1]. Needs: nothing.

struct Params {
  M: u32,
  N: u32,
  K: u32,
}

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let n = id.x;
  let m = id.y;
  if (m >= params.M || n >= params.N) {
    return;
  }
  var sum = 0.0;
  for (var k = 0u; k < params.K; k++) {
    sum += x[m * params.K + k] * weight[n * params.K + k];
  }
  y[m * params.N + n] = sum + bias[n];
}
`,
  "matmul/matmul_register": `// y = activate(x Wᵀ + bias) by register tiles, for software adapters without subgroups. There shared memory is ordinary memory
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
`,
  "matmul/matmul_subgroup": `// y = activate(x Wᵀ + bias) for software adapters with subgroups. There a load is a gather, lane by lane, even of one address;
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
`,
  "matmul/matmul_subgroup_matrix": `// y = activate(x Wᵀ + bias) by subgroup matrices (tensor cores, simdgroup matrices), f32, or f16 with f32 sums. Tiles of x and W
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
`,
  "matmul/matmul_tile": `// y = activate(x Wᵀ + bias) for GPUs: tiles of x and W are staged in shared memory, so that a workgroup loads each number once.
//
// x: f32[M, K]  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]; with split-K f32[SPLITS, M, FACTORS, N]
// A workgroup of WX·WY threads computes TM·WY rows by 4·WX sums (4·WX / FACTORS columns of y); see parts/tile.wgsl.
// Dispatch: ceil(M / (TM·WY)) · SPLITS · ceil(FACTORS·N / (4·WX)), folded, down the rows first, so that neighbours share W in
// the cache. Needs: 64·TM·WY + 320·WX bytes of shared memory, at most 15.5 KiB with WX = 32.
// @use matmul
// @use input = input_vec4
// @use weight = weight_f32
// @use tile

@compute @workgroup_size(WX, WY)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  multiply_tiles(workgroup_id.x + workgroup_id.y * num_workgroups.x, local.xy, lane);
}
`,
  "matmul/matmul_tile_sized": `// y = activate(x Wᵀ + bias) as matmul_tile, in subgroups of SG threads. Of a GPU's subgroup sizes, 32 and 64, Dawn takes 64 by
// default; RDNA dual-issues multiply-adds only with 32.
//
// x: f32[M, K]  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]; with split-K f32[SPLITS, M, FACTORS, N]
// Dispatch: as matmul_tile. Needs: as matmul_tile; subgroups of SG threads, and WX a multiple of SG.
enable subgroups;
enable subgroup_size_control;
// @use matmul
// @use input = input_vec4
// @use weight = weight_f32
// @use tile
override SG: u32 = 32;

@compute @subgroup_size(SG) @workgroup_size(WX, WY)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  multiply_tiles(workgroup_id.x + workgroup_id.y * num_workgroups.x, local.xy, lane);
}
`,
  "matmul/matvec_blocks": `// y = activate(x Wᵀ + bias) for few rows of x and a quantized weight, on GPUs. Dequantizing is bound by instructions as much as
// by bandwidth, so a thread takes whole blocks: one scale for 32 codes.
//
// x: f32[M, K], M at most 8  weight: [N, K] by a loader of blocks  bias: f32[N]  ->  y: f32[M, N]
// A workgroup of WG threads computes 4·WG/LANES sums (4·WG/LANES / FACTORS columns of y) for all M rows; see
// parts/block_walk.wgsl.
// Dispatch: ceil(FACTORS·N / (4·WG/LANES)), folded. Needs: 144·TM·LANES bytes of shared memory, 4·WG more with norm_rms; K a
// multiple of 32; rows of W of a multiple of 16 bytes.
// @use matmul
// @use block_walk

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  multiply_blocks(workgroup_id.x + workgroup_id.y * num_workgroups.x, lane);
}
`,
  "matmul/matvec_blocks_sized": `// y = activate(x Wᵀ + bias) as matvec_blocks, in subgroups of SG threads, for the reason in matmul_tile_sized.
//
// x: f32[M, K], M at most 8  weight: [N, K] by a loader of blocks  bias: f32[N]  ->  y: f32[M, N]
// A workgroup of WG threads computes 4·WG/LANES sums (4·WG/LANES / FACTORS columns of y) for all M rows; see
// parts/block_walk.wgsl.
// Dispatch: ceil(FACTORS·N / (4·WG/LANES)), folded. Needs: 144·TM·LANES bytes of shared memory, 4·WG more with norm_rms; K a
// multiple of 32; rows of W of a multiple of 16 bytes; subgroups of SG threads, and WG a multiple of SG.
enable subgroups;
enable subgroup_size_control;
// @use matmul
// @use block_walk
override SG: u32 = 32;

@compute @subgroup_size(SG) @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  multiply_blocks(workgroup_id.x + workgroup_id.y * num_workgroups.x, lane);
}
`,
  "matmul/matvec_subgroup": `// y = activate(x Wᵀ + bias) for one or two rows of x, on software adapters with subgroups.
//
// x: f32[M, K], M at most 2  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]
// A workgroup is one subgroup of SG lanes. It computes TN sums (TN / FACTORS columns of y) for all M rows: its lanes stride over
// K by blocks, and their sums are reduced.
// Dispatch: ceil(FACTORS·N / TN), folded. Needs: subgroups of exactly SG lanes.
enable subgroups;
// @use matmul
// @use input = input_vec4
// @use weight = weight_f32
override SG: u32 = 8;
override TM: u32 = 2; // M, at most 2
const TN = select(4u, 8u, BLOCK > 1u); // of f32, eight rows at once are no faster

@compute @workgroup_size(SG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let column0 = TN / FACTORS * (workgroup_id.x + workgroup_id.y * num_workgroups.x);
  let K4 = groups_of_four();

  var sums: array<array<f32, TN>, 2>;
  let words = (K4 + WORD - 1u) / WORD;
  for (var block = lane; block * BLOCK < words; block += SG) {
    var dot_codes = array<array<f32, TN>, 2>();
    var sum_x = vec2<f32>();
    // Mesa unrolls a loop of constant count: good for one word; eight cost more in code than they save.
    let count = select(1u, min(BLOCK, words - block * BLOCK), BLOCK > 1u);
    for (var i = 0u; i < count; i++) {
      let word = block * BLOCK + i;
      var a: array<array<vec4<f32>, WORD>, 2>;
      for (var m = 0u; m < TM; m++) {
        for (var j = 0u; j < WORD; j++) {
          a[m][j] = load_input(m, word * WORD + j);
          sum_x[m] += dot(a[m][j], vec4<f32>(1.0));
        }
      }
      for (var n = 0u; n < TN; n++) {
        let codes = unpack(load_packed(row_of(column0 + n / FACTORS, n % FACTORS), word, K4));
        for (var m = 0u; m < TM; m++) {
          for (var j = 0u; j < WORD; j++) {
            dot_codes[m][n] += dot(a[m][j], codes[j]);
          }
        }
      }
    }
    for (var n = 0u; n < TN; n++) {
      for (var m = 0u; m < TM; m++) {
        sums[m][n] += scale_dot(row_of(column0 + n / FACTORS, n % FACTORS), block, K4, dot_codes[m][n], sum_x[m]);
      }
    }
  }

  for (var m = 0u; m < TM; m++) {
    for (var n = 0u; n < TN; n++) {
      sums[m][n] = subgroupAdd(sums[m][n]) + bias_of(column0 + n / FACTORS, n % FACTORS);
    }
    if (lane == 0u) {
      for (var n = 0u; n < TN; n += FACTORS) {
        store(m, column0 + n / FACTORS, sums[m][n], sums[m][n + FACTORS - 1u]);
      }
    }
  }
}
`,
  "matmul/matvec_workgroup": `// y = activate(x Wᵀ + bias) for the few rows of x of decoding, on GPUs: bound by the bandwidth of reading W once.
//
// x: f32[M, K], M at most 8  weight: [N, K] by a loader  bias: f32[N]  ->  y: f32[M, N]
// A workgroup computes four sums (4 / FACTORS columns of y) for all M rows: its threads stride over K, and their sums are reduced.
// Dispatch: ceil(FACTORS·N / 4), folded. Needs: 16·WG·TM bytes of shared memory, 4·WG more with norm_rms; subgroups of any size
// with column_sums_subgroups.
// @use matmul
// @use input = input_vec4
// @use weight = weight_f32
// @use column_sums = column_sums_tree
// @use norm = norm_none
override WG: u32 = 256; // a power of two
override TM: u32 = 1; // M, at most 8; by default limits at most 1024 / WG, less with norm_rms

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let column0 = 4u / FACTORS * (workgroup_id.x + workgroup_id.y * num_workgroups.x);
  if (column0 >= params.N) {
    return;
  }
  let K4 = groups_of_four();
  // Four rows of W. Beyond the last they are the last, and their sums are not stored.
  let rows = vec4<u32>(
    row_of(column0, 0u),
    row_of(column0 + 1u / FACTORS, 1u % FACTORS),
    row_of(column0 + 2u / FACTORS, 0u),
    row_of(column0 + 3u / FACTORS, 1u % FACTORS),
  );

  var sums: array<vec4<f32>, 8>;
  var squares: array<f32, 8>;
  let words = (K4 + WORD - 1u) / WORD;
  for (var word = lane; word < words; word += WG) {
    let w0 = unpack(load_packed(rows.x, word, K4));
    let w1 = unpack(load_packed(rows.y, word, K4));
    let w2 = unpack(load_packed(rows.z, word, K4));
    let w3 = unpack(load_packed(rows.w, word, K4));
    var gains: array<vec4<f32>, WORD>;
    for (var j = 0u; j < WORD; j++) {
      gains[j] = gain_of(word * WORD + j);
    }
    for (var m = 0u; m < TM; m++) {
      var dot_codes = vec4<f32>();
      var sum_x = 0.0;
      for (var j = 0u; j < WORD; j++) {
        var a = load_input(m, word * WORD + j);
        if (IS_NORMED) {
          squares[m] += dot(a, a);
          a *= gains[j];
        }
        dot_codes += vec4<f32>(dot(a, w0[j]), dot(a, w1[j]), dot(a, w2[j]), dot(a, w3[j]));
        sum_x += dot(a, vec4<f32>(1.0));
      }
      sums[m] += vec4<f32>(
        scale_dot(rows.x, word / BLOCK, K4, dot_codes.x, sum_x),
        scale_dot(rows.y, word / BLOCK, K4, dot_codes.y, sum_x),
        scale_dot(rows.z, word / BLOCK, K4, dot_codes.z, sum_x),
        scale_dot(rows.w, word / BLOCK, K4, dot_codes.w, sum_x),
      );
    }
  }

  if (IS_NORMED) {
    for (var m = 0u; m < TM; m++) {
      sums[m] *= norm_of(lane, squares[m]);
    }
  }
  store_columns(column0, lane, &sums);
}
`,
  "matmul/parts/block_walk": `// The product of few rows of x with a quantized weight, for one workgroup: a thread takes whole blocks, their codes by loads of 16
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
`,
  "matmul/parts/blocks_int4": `// Dequantizing loader of whole blocks of 32 numbers: LOADS_OF_BLOCK loads of four u32, each u32 WORD groups of four codes; and the
// block's scale and min, w = scale.x · code + scale.y. int4, with the layout of weight_int4: a block is one load. A row must be
// a multiple of 16 bytes, as it is if K is a multiple of 128.
// @slot blocks: weight, WORD, LOADS_OF_BLOCK, start_of_row(row: u32, blocks: u32) -> u32
// @slot blocks: load_block(start: u32, block: u32, i: u32) -> vec4<u32>, unpack(codes: u32) -> array<vec4<f32>, WORD>
// @slot blocks: block_scale(start: u32, block: u32, blocks: u32) -> vec2<f32>
// @slot blocks: scale_dot(scale: vec2<f32>, dot_codes: f32, sum_x: f32) -> f32
@group(0) @binding(1) var<storage, read> weight: array<vec4<u32>>;

const WORD = 2u;
const LOADS_OF_BLOCK = 1u;

fn start_of_row(row: u32, blocks: u32) -> u32 {
  return row * (blocks * 5u / 4u);
}

fn load_block(start: u32, block: u32, i: u32) -> vec4<u32> {
  return weight[start + block];
}

fn block_scale(start: u32, block: u32, blocks: u32) -> vec2<f32> {
  let bits = weight[start + blocks + block / 4u][block % 4u];
  return bitcast<vec2<f32>>(vec2<u32>(bits << 16u, bits & 0xffff0000u));
}

fn unpack(codes: u32) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(
    vec4<f32>(unpack4xU8(codes & 0x0f0f0f0fu)),
    vec4<f32>(unpack4xU8((codes >> 4u) & 0x0f0f0f0fu)),
  );
}

fn scale_dot(scale: vec2<f32>, dot_codes: f32, sum_x: f32) -> f32 {
  return scale.x * dot_codes + scale.y * sum_x;
}
`,
  "matmul/parts/blocks_int8": `// Dequantizing loader of whole blocks of 32 numbers, int8, with the layout of weight_int8: a block is two loads. A row must be a
// multiple of 16 bytes, as it is if K is a multiple of 256. Contract: blocks_int4.
@group(0) @binding(1) var<storage, read> weight: array<vec4<u32>>;

const WORD = 1u;
const LOADS_OF_BLOCK = 2u;

fn start_of_row(row: u32, blocks: u32) -> u32 {
  return row * (2u * blocks + (blocks + 1u) / 8u);
}

fn load_block(start: u32, block: u32, i: u32) -> vec4<u32> {
  return weight[start + 2u * block + i];
}

fn block_scale(start: u32, block: u32, blocks: u32) -> vec2<f32> {
  let pair = weight[start + 2u * blocks + block / 8u][block / 2u % 4u];
  return vec2<f32>(bitcast<f32>(select(pair << 16u, pair & 0xffff0000u, block % 2u == 1u)), 0.0);
}

fn unpack(codes: u32) -> array<vec4<f32>, WORD> {
  return array<vec4<f32>, WORD>(vec4<f32>(unpack4xI8(codes)));
}

fn scale_dot(scale: vec2<f32>, dot_codes: f32, sum_x: f32) -> f32 {
  return scale.x * dot_codes;
}
`,
  "matmul/parts/column_sums_subgroups": `// Reduces each thread's four sums of every row of y over the workgroup, and stores them: first within each subgroup, then, after
// one barrier, the subgroup of thread 0 reduces the partial sums in shared memory. With part matmul; all threads call it.
// Correct for subgroups of any size and layout, as reduce_subgroups.wgsl.
enable subgroups;

var<workgroup> partial_sums: array<vec4<f32>, WG * TM>;

fn store_columns(column0: u32, lane: u32, sums: ptr<function, array<vec4<f32>, 8>>) {
  let rank = subgroupExclusiveAdd(1u);
  let size = subgroupAdd(1u); // below subgroup_size in a partial subgroup
  let stores = subgroupAny(lane == 0u);
  let is_ours = rank == subgroupBroadcastFirst(lane / size) % size; // as in reduce_subgroups.wgsl
  for (var m = 0u; m < TM; m++) {
    let sum = subgroupAdd((*sums)[m]);
    partial_sums[m * WG + lane] = select(vec4<f32>(), sum, is_ours);
  }
  workgroupBarrier();
  for (var m = 0u; m < TM; m++) {
    var rest = vec4<f32>();
    if (stores) {
      for (var i = rank; i < WG; i += size) {
        rest += partial_sums[m * WG + i];
      }
    }
    let sum = subgroupAdd(rest); // outside of the branch: it needs uniform control flow
    if (stores) {
      for (var n = rank; n < 4u / FACTORS; n += size) {
        let first = sum[n * FACTORS] + bias_of(column0 + n, 0u);
        let last = sum[n * FACTORS + FACTORS - 1u] + bias_of(column0 + n, FACTORS - 1u);
        store(m, column0 + n, first, last);
      }
    }
  }
}
`,
  "matmul/parts/column_sums_tree": `// Reduces each thread's four sums of every row of y over the workgroup, as a tree in shared memory, and stores them. With part
// matmul; WG is a power of two, at least 4·TM; all threads call it.
// @slot column_sums: store_columns(column0: u32, lane: u32, sums: ptr<function, array<vec4<f32>, 8>>)
var<workgroup> partial_sums: array<vec4<f32>, WG * TM>;

fn store_columns(column0: u32, lane: u32, sums: ptr<function, array<vec4<f32>, 8>>) {
  for (var m = 0u; m < TM; m++) {
    partial_sums[m * WG + lane] = (*sums)[m];
  }
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (lane < half) {
      for (var m = 0u; m < params.M; m++) {
        partial_sums[m * WG + lane] += partial_sums[m * WG + lane + half];
      }
    }
    workgroupBarrier();
  }
  let columns = 4u / FACTORS;
  if (lane < columns * TM) {
    let column = column0 + lane % columns;
    let at = lane / columns * WG;
    let first = lane % columns * FACTORS;
    let last = first + FACTORS - 1u;
    let sum = partial_sums[at];
    store(lane / columns, column, sum[first] + bias_of(column, 0u), sum[last] + bias_of(column, FACTORS - 1u));
  }
}
`,
  "matmul/parts/epilogue_residual": `// Epilogue: adds the residual, if there is one. load_epilogue() loads the operands, epilogue() applies them; operands need not be
// loaded where has_epilogue() is false.
// @slot epilogue: EpilogueOperands, has_epilogue() -> bool, load_epilogue(row: u32, column: u32) -> EpilogueOperands
// @slot epilogue: epilogue(value: f32, row: u32, operands: EpilogueOperands) -> f32
@group(0) @binding(3) var<storage, read> residual: array<f32>;

alias EpilogueOperands = f32;

fn has_epilogue() -> bool {
  return params.has_residual != 0u;
}

fn load_epilogue(row: u32, column: u32) -> EpilogueOperands {
  return residual[row * params.y_stride + column];
}

fn epilogue(value: f32, row: u32, operands: EpilogueOperands) -> f32 {
  return select(value, value + operands, has_epilogue());
}
`,
  "matmul/parts/epilogue_tokens": `// Epilogue of patch embedding: rows are the tokens of images, params.tokens each. The first row of an image becomes the class
// token; position embeddings are added to all rows.
@group(0) @binding(3) var<storage, read> positions: array<f32>;
@group(0) @binding(7) var<storage, read> class_token: array<f32>;

struct EpilogueOperands {
  class_token: f32,
  position: f32,
}

fn has_epilogue() -> bool {
  return true;
}

fn load_epilogue(row: u32, column: u32) -> EpilogueOperands {
  return EpilogueOperands(class_token[column], positions[row % params.tokens * params.y_stride + column]);
}

fn epilogue(value: f32, row: u32, operands: EpilogueOperands) -> f32 {
  return select(value, operands.class_token, row % params.tokens == 0u) + operands.position;
}
`,
  "matmul/parts/input_patches": `// Input loader of patch embedding: reads patches in place from x: f32[images, channels, height, width], with no unfolded copy.
// Row r is token r % params.tokens of image r / params.tokens. Token 0 is the class token and has no patch; token 1 + p has patch
// p, in row-major order. The numbers of a patch are ordered (channel, y, x), as the weight of a convolution.
@group(0) @binding(0) var<storage, read> x: array<f32>;
override PATCH: u32 = 14; // side, in pixels; an override, because division by a constant is cheap

// The index in x where a row's patch begins; beyond the last row, the last row's.
fn input_of(row: u32) -> u32 {
  let inside = min(row, params.M - 1u);
  let image = inside / params.tokens;
  let place = max(inside % params.tokens, 1u) - 1u; // the epilogue replaces the class token's sums
  let columns = params.width / PATCH;
  let channels = params.K / (PATCH * PATCH);
  return (image * channels * params.height + place / columns * PATCH) * params.width + place % columns * PATCH;
}

// Numbers 4·group … 4·group + 3 of the patch that begins at start; zeros beyond its end.
fn load_input(start: u32, group: u32) -> vec4<f32> {
  let k = vec4<u32>(0u, 1u, 2u, 3u) + 4u * group;
  let inside = min(k, vec4<u32>(params.K - 1u));
  let line = inside / PATCH;
  let at = start + (line / PATCH * params.height + line % PATCH) * params.width + inside % PATCH;
  return select(vec4<f32>(), vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]), k < vec4<u32>(params.K));
}
`,
  "matmul/parts/input_scalar": `// Input loader for rows of any length K.
@group(0) @binding(0) var<storage, read> x: array<f32>;

// The first argument of load_input for a row: the row; beyond the last row, the last.
fn input_of(row: u32) -> u32 {
  return min(row, params.M - 1u);
}

// Numbers 4·group … 4·group + 3 of a row of x: f32[M, K]; zeros beyond its end. Memory holds the next row there, and the padding
// of a quantized weight is not always 0.
fn load_input(row: u32, group: u32) -> vec4<f32> {
  let k = vec4<u32>(0u, 1u, 2u, 3u) + 4u * group;
  let at = row * params.K + min(k, vec4<u32>(params.K - 1u));
  return select(vec4<f32>(), vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]), k < vec4<u32>(params.K));
}
`,
  "matmul/parts/input_vec4": `// Input loader for rows whose length K is a multiple of 4: one vec4 a load.
// @slot input: x, input_of(row: u32) -> u32, load_input(input: u32, group: u32) -> vec4<f32>
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;

// The first argument of load_input for a row: the row; beyond the last row, the last.
fn input_of(row: u32) -> u32 {
  return min(row, params.M - 1u);
}

// Numbers 4·group … 4·group + 3 of a row of x: f32[M, K]; zeros beyond its end.
fn load_input(row: u32, group: u32) -> vec4<f32> {
  let K4 = params.K / 4u;
  return select(vec4<f32>(), x[row * K4 + min(group, K4 - 1u)], group < K4);
}
`,
  "matmul/parts/matmul": `// Shared by all products y = activate(x Wᵀ + bias) + residual: Params, bias and store. The last step, by default the residual, is
// the slot epilogue.
// The bias is added after the sum: accumulating onto it would round every product to the bias's digits.
// Kernels whose threads walk along K sum runs of RUN groups, then add the runs: a large product, as massive channels have, costs
// the digits of its run only.
// A weight too large for one binding is sharded by rows; a launch has N rows of it and writes N columns of y.
// In a gated linear unit W is the gate's rows, then the up projection's, and FACTORS is 2: y = activate(x Gateᵀ + bias) *
// (x Upᵀ + bias) + residual. A launch has the same N rows of both. The two sums of a column of y are adjacent, so that one
// invocation stores them.
// @use epilogue = epilogue_residual
// @use activation

override FACTORS: u32 = 1; // sums of a column of y: 2 in a gated linear unit
const RUN = 64u; // groups of four

struct Params {
  M: u32,
  N: u32,
  K: u32,
  column0: u32, // of y: the shard's first
  row0: u32, // of the bound weight: the shard's first
  y_stride: u32, // columns of y
  has_bias: u32, // 0: bias is a placeholder of one element
  has_residual: u32, // 0: residual is a placeholder
  tokens: u32, // of an image, in patch embedding; in other products tokens, height and width are 0
  height: u32, // of an image, in pixels
  width: u32,
}

@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> row_scales: array<f32>; // of the rows of x, in f16 products; else a placeholder
@group(0) @binding(6) var<storage, read> weight_scales: array<f32>; // of the rows of W, likewise
@group(0) @binding(8) var<uniform> params: Params;

// Groups of four numbers in a row of W. The last is padded; load_input gives zeros there.
fn groups_of_four() -> u32 {
  return (params.K + 3u) / 4u;
}

// The row of W for a factor of a column; beyond the last column, the last column's.
fn row_of(column: u32, factor: u32) -> u32 {
  return params.row0 + factor * params.N + min(column, params.N - 1u);
}

fn bias_of(column: u32, factor: u32) -> f32 {
  if (params.has_bias == 0u) {
    return 0.0;
  }
  return bias[factor * params.y_stride + params.column0 + min(column, params.N - 1u)];
}

// Stores an element of y, from the sums of the column's first factor and of its last, which are the same if FACTORS is 1.
fn store(row: u32, column: u32, first: f32, last: f32) {
  if (row < params.M && column < params.N) {
    var operands: EpilogueOperands;
    if (has_epilogue()) {
      operands = load_epilogue(row, params.column0 + column);
    }
    store_with(operands, row, column, vec2<f32>(first, last));
  }
}

// As store, with the epilogue's operands loaded before. Nothing is stored outside of y.
fn store_with(operands: EpilogueOperands, row: u32, column: u32, sums: vec2<f32>) {
  if (row < params.M && column < params.N) {
    var value = activate(sums.x);
    if (FACTORS > 1u) {
      value *= sums.y;
    }
    y[row * params.y_stride + params.column0 + column] = epilogue(value, row, operands);
  }
}
`,
  "matmul/parts/matrix/matrix_subgroup": `// Subgroup matrices of 8 x 8 f32, for matmul_subgroup_matrix. All threads of a subgroup call these functions. at is the index
// in shared memory where a matrix begins: in the tile of x (left), of W (right), or of sums.
// @slot matrix: Number, M_SIDE, N_SIDE, K_SIDE, BK, STRIDE, Left, Right, Sum
// @slot matrix: load_left(at: u32) -> Left, load_right(at: u32) -> Right, multiply_add(a: Left, b: Right, sum: Sum) -> Sum
// @slot matrix: store_sum(at: u32, sum: Sum), sum_at(at: u32) -> f32
// @slot matrix: row_scale_of(row: u32) -> f32, weight_scale_of(row: u32) -> f32
// @slot matrix: scaled(group: vec4<f32>, scale: f32) -> vec4<f32>, unscaled(sum: f32, scale: f32) -> f32
// @use staged_f32
enable chromium_experimental_subgroup_matrix;

alias Left = subgroup_matrix_left<f32, 8, 8>;
alias Right = subgroup_matrix_right<f32, 8, 8>;
alias Sum = subgroup_matrix_result<f32, 8, 8>;

fn load_left(at: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&x_tile, at, STRIDE);
}

// A row of W is a column of Wᵀ.
fn load_right(at: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&weight_tile, at, STRIDE);
}

fn multiply_add(a: Left, b: Right, sum: Sum) -> Sum {
  return subgroupMatrixMultiplyAccumulate(a, b, sum);
}

fn store_sum(at: u32, sum: Sum) {
  subgroupMatrixStore<row_major>(&weight_tile, at, sum, WIDE);
}
`,
  "matmul/parts/matrix/matrix_subgroup_f16": `// Subgroup matrices of f16 with f32 sums, of the shape that the slot sides defines. Contract: matrix_subgroup.
// @use staged_f16
enable chromium_experimental_subgroup_matrix;

alias Left = subgroup_matrix_left<f16, K_SIDE, M_SIDE>;
alias Right = subgroup_matrix_right<f16, N_SIDE, K_SIDE>;
alias Sum = subgroup_matrix_result<f32, N_SIDE, M_SIDE>;

fn load_left(at: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&x_tile, at, STRIDE);
}

fn load_right(at: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&weight_tile, at, STRIDE);
}

fn multiply_add(a: Left, b: Right, sum: Sum) -> Sum {
  return subgroupMatrixMultiplyAccumulate(a, b, sum);
}

fn store_sum(at: u32, sum: Sum) {
  subgroupMatrixStore<row_major>(&sum_tile, at, sum, WIDE);
}
`,
  "matmul/parts/matrix/matrix_threads": `// Emulates matrix_subgroup and matrix_subgroup_f16 without matrix instructions, for tests on adapters that lack them; too slow for
// use. A matrix of x or W is the index in shared memory where it begins; the sums are distributed over the subgroup's threads.
// Contract: matrix_subgroup.
// @use staged = staged_f32
alias Left = u32;
alias Right = u32;
// Sums rank, rank + size, … of f32[M_SIDE, N_SIDE], by the thread's rank and the subgroup's size, which is at least four.
alias Sum = array<f32, M_SIDE * N_SIDE / 4u>;

fn load_left(at: u32) -> Left {
  return at;
}

fn load_right(at: u32) -> Right {
  return at;
}

fn multiply_add(a: Left, b: Right, sum: Sum) -> Sum {
  let size = subgroupAdd(1u);
  var y = sum;
  for (var i = subgroupExclusiveAdd(1u); i < M_SIDE * N_SIDE; i += size) {
    let row = a + i / N_SIDE * STRIDE;
    let column = b + i % N_SIDE * STRIDE;
    var products = 0.0;
    for (var k = 0u; k < K_SIDE; k++) {
      products += f32(x_tile[row + k]) * f32(weight_tile[column + k]);
    }
    y[i / size] += products;
  }
  return y;
}

fn store_sum(at: u32, sum: Sum) {
  let size = subgroupAdd(1u);
  for (var i = subgroupExclusiveAdd(1u); i < M_SIDE * N_SIDE; i += size) {
    set_sum(at + i / N_SIDE * WIDE + i % N_SIDE, sum[i / size]);
  }
}
`,
  "matmul/parts/matrix/sides_16x16x16": `// The shape of the matrices: M_SIDE x K_SIDE of x, K_SIDE x N_SIDE of Wᵀ.
// @slot sides: M_SIDE, N_SIDE, K_SIDE
const M_SIDE = 16u;
const N_SIDE = 16u;
const K_SIDE = 16u;
`,
  "matmul/parts/matrix/sides_8x16x16": `// The shape of the matrices. Contract: sides_16x16x16.
const M_SIDE = 8u;
const N_SIDE = 16u;
const K_SIDE = 16u;
`,
  "matmul/parts/matrix/sides_8x8x8": `// The shape of the matrices. Contract: sides_16x16x16.
const M_SIDE = 8u;
const N_SIDE = 8u;
const K_SIDE = 8u;
`,
  "matmul/parts/matrix/staged_f16": `// Tiles of f16. The sums are f32, and have a tile of their own.
// @use sides = sides_16x16x16
// @use scales_rows
enable f16;
alias Number = f16;
const BK = 32u;
const STRIDE = BK + 8u; // padded against bank conflicts; rows stay aligned to 16 bytes

var<workgroup> sum_tile: array<f32, DOWN * ACROSS * FLUSH>;

fn sum_at(at: u32) -> f32 {
  return sum_tile[at];
}

fn set_sum(at: u32, sum: f32) {
  sum_tile[at] = sum;
}
`,
  "matmul/parts/matrix/staged_f32": `// Tiles of f32. The sums are stored into the tile of W.
// @slot staged: Number, M_SIDE, N_SIDE, K_SIDE, BK, STRIDE, sum_at(at: u32) -> f32, set_sum(at: u32, sum: f32)
// @use scales_none
alias Number = f32;
const M_SIDE = 8u;
const N_SIDE = 8u;
const K_SIDE = 8u;
const BK = 16u;
const STRIDE = BK + 4u; // padded against bank conflicts

fn sum_at(at: u32) -> f32 {
  return weight_tile[at];
}

fn set_sum(at: u32, sum: f32) {
  weight_tile[at] = sum;
}
`,
  "matmul/parts/norm_none": `// A product of x as it is.
// @slot norm: IS_NORMED, gain_of(group: u32) -> vec4<f32>, norm_of(lane: u32, squares: f32) -> f32
const IS_NORMED = false;

// What numbers 4·group … 4·group + 3 of a row of x are multiplied by.
fn gain_of(group: u32) -> vec4<f32> {
  return vec4<f32>(1.0);
}

// What the sums of a row are multiplied by, where a thread has its share of the row's Σ x². All threads call it.
fn norm_of(lane: u32, squares: f32) -> f32 {
  return 1.0;
}
`,
  "matmul/parts/norm_rms": `// A product of the RMS norm of x, x / sqrt(mean(x²) + EPS) * gain, for few rows of a length divisible by four. x is multiplied by
// the gain as it is loaded; the root is known when all of x has been, and divides the sums. Each workgroup computes it again:
// that takes less time than a launch for the norm.
// gain: f32[K]
// @use reduce = reduce_tree
override EPS: f32 = 1e-6;
const IS_NORMED = true;

@group(0) @binding(7) var<storage, read> gain: array<vec4<f32>>;

fn gain_of(group: u32) -> vec4<f32> {
  return gain[min(group, params.K / 4u - 1u)];
}

fn norm_of(lane: u32, squares: f32) -> f32 {
  return 1.0 / sqrt(sum_over_threads(lane, squares) / f32(params.K) + EPS);
}
`,
  "matmul/parts/products_f16": `// Tiles in shared memory as f16, in half the bytes of f32. The product of two f16 is exact in f32, and sums are f32: the only
// rounding to f16 is that of staging.
// @use scales_rows
alias Staged = vec2<u32>;

fn stage(group: vec4<f32>) -> Staged {
  return Staged(pack2x16float(group.xy), pack2x16float(group.zw));
}

fn add_products(a: Staged, b: Staged, sum: f32) -> f32 {
  let x = vec4<f32>(unpack2x16float(a.x), unpack2x16float(a.y));
  let w = vec4<f32>(unpack2x16float(b.x), unpack2x16float(b.y));
  return fma(x.w, w.w, fma(x.z, w.z, fma(x.y, w.y, fma(x.x, w.x, sum))));
}
`,
  "matmul/parts/products_f32": `// Tiles in shared memory as f32.
// @slot products: Staged, stage(group: vec4<f32>) -> Staged, add_products(a: Staged, b: Staged, sum: f32) -> f32
// @slot products: row_scale_of(row: u32) -> f32, weight_scale_of(row: u32) -> f32
// @slot products: scaled(group: vec4<f32>, scale: f32) -> vec4<f32>, unscaled(sum: f32, scale: f32) -> f32
// @use scales_none
alias Staged = vec4<f32>;

fn stage(group: vec4<f32>) -> Staged {
  return group;
}

// Four multiply-adds on every compiler; some make five instructions of dot() and an addition.
fn add_products(a: Staged, b: Staged, sum: f32) -> f32 {
  return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, sum))));
}
`,
  "matmul/parts/scales_none": `// f32 products: rows of x and W are not scaled.

fn row_scale_of(row: u32) -> f32 {
  return 1.0;
}

fn weight_scale_of(row: u32) -> f32 {
  return 1.0;
}

fn scaled(group: vec4<f32>, scale: f32) -> vec4<f32> {
  return group;
}

fn unscaled(sum: f32, scale: f32) -> f32 {
  return sum;
}
`,
  "matmul/parts/scales_rows": `// f16 products: each row of x and of W is multiplied by a power of two (kernels/rows/f16_scales.wgsl) before it is rounded to f16,
// so that it is within f16's range; the sums are divided by both.

// Beyond the last row, the last row's.
fn row_scale_of(row: u32) -> f32 {
  return row_scales[min(row, params.M - 1u)];
}

fn weight_scale_of(row: u32) -> f32 {
  return weight_scales[row];
}

fn scaled(group: vec4<f32>, scale: f32) -> vec4<f32> {
  return group * scale;
}

// sum / scale, as a multiplication by the power of two with the negated exponent: exact, as WGSL's division need not be.
fn unscaled(sum: f32, scale: f32) -> f32 {
  return sum * bitcast<f32>((254u << 23u) - bitcast<u32>(scale));
}
`,
  "matmul/parts/tile": `// The product of one workgroup: tiles of x and W are staged in shared memory, then multiplied from registers. With part matmul;
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
`,
  "rows/argmax": `// y = the index of the row's largest element, the lowest index on ties, and whether that element is finite.
//
// x: f32[R, V], compared as bits  ->  y: u32[2, R], indices, then 1 where the largest is NaN or an infinity, else 0
// One workgroup per row; its threads stride over V, with LOADS loads in flight. Floats are mapped to order-preserving
// integers, so that minus infinity, subnormals and NaN are distinguished on every driver. NaN is larger than any number.
// Dispatch: R workgroups, folded. Needs: nothing; subgroups of any size with reduce_subgroups.
// @use reduce = reduce_tree
override WG: u32 = 64;
override LOADS: u32 = 1; // at most 8: their latencies overlap on GPUs

const OF_MINUS_INFINITY = 0x00800000u;
const OF_INFINITY = 0xff800000u;

struct Params {
  rows: u32,
  V: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

// An order-preserving integer of the float with these bits: equal for -0 and 0, largest for NaN, never 0.
fn key(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return 0xffffffffu;
  }
  return select(0x80000000u + magnitude, 0x80000000u - magnitude, bits > 0x80000000u);
}

// Clamps to the last element, which cannot win against itself; a single load is in bounds, by the loop.
fn inside(at: u32) -> u32 {
  return select(min(at, params.V - 1u), at, LOADS == 1u);
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  if (row >= params.rows) {
    return;
  }
  var best = Candidate(0u, lane); // a thread without a candidate loses to thread 0
  let start = row * params.V;
  for (var i = lane; i < params.V; i += LOADS * WG) {
    var bits: array<u32, 8>;
    for (var j = 0u; j < LOADS; j++) {
      bits[j] = x[start + inside(i + j * WG)];
    }
    for (var j = 0u; j < LOADS; j++) {
      let candidate = key(bits[j]);
      if (candidate > best.key) {
        best = Candidate(candidate, inside(i + j * WG));
      }
    }
  }
  best = best_over_threads(lane, best);
  if (lane == 0u) {
    y[row] = best.place;
    y[params.rows + row] = u32(best.key <= OF_MINUS_INFINITY || best.key >= OF_INFINITY);
  }
}
`,
  "rows/cross_entropy": `// y = ln Σ e^(x - max(x)) - (x[label] - max(x)), for each row: cross-entropy, the negative log probability of its label.
//
// x: f32[R, V], compared as bits; labels: u32[R]  ->  y: f32[R], as bits
// One workgroup per row; its threads stride over V. A row whose label is IGNORED gives 0 and is not read. The loss of a label
// at minus infinity is infinity. NaN for a label of V or above, and for a row with a NaN or plus infinity, or of nothing but
// minus infinity.
// Dispatch: R workgroups, folded. Needs: nothing; subgroups of any size with reduce_subgroups.
// Source: torch.nn.functional.cross_entropy with reduction "none" and ignore_index -100.
// @use math
// @use reduce = reduce_tree
// @use log_sum_exp
override WG: u32 = 64;

const IGNORED = 0xffffff9cu; // -100 as a u32
const INFINITY = 0x7f800000u;

struct Params {
  rows: u32,
  V: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  if (row >= params.rows) {
    return;
  }
  let label = labels[row];
  if (label == IGNORED) {
    if (lane == 0u) {
      y[row] = 0u;
    }
    return;
  }
  let start = row * params.V;
  let of_row = log_sum_exp(start, params.V, lane);
  if (lane == 0u) {
    let bits = x[start + min(label, params.V - 1u)];
    let value = bitcast<u32>(of_row.log_sum - (bitcast<f32>(bits) - of_row.largest));
    y[row] = select(NAN, select(value, INFINITY, bits == MINUS_INFINITY), of_row.finite && label < params.V);
  }
}
`,
  "rows/f16_scales": `// y = the power of two that brings the largest magnitude of a row into [16, 32): what x is multiplied by before it is rounded to
// f16, so that no number leaves f16's range and those that count keep all its digits.
//
// x: f32[R, D]  ->  y: f32[R]
// LANES threads a row, as the part row says; they stride over it, LOADS loads ahead of what is done with them.
// A row with a NaN or an infinity gets some power of two: these stay what they are when they are scaled and rounded.
// Dispatch: ceil(R · LANES / WG) workgroups, folded. Needs: nothing, or what the part row does.
// @use row = row_workgroup
// @use numbers = numbers_vec4
override WG: u32 = 64;
override LOADS: u32 = 1; // at most 4: GPUs wait for all of them at once
const BIAS = 127u; // of f32's exponent
const TOP = 4u; // 2^4 is the least that the largest comes to

struct Params {
  rows: u32,
  D: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Numbers>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = row_of(workgroup_id.x + workgroup_id.y * num_workgroups.x, lane);
  if (row >= params.rows) {
    return;
  }
  let n = params.D / WIDTH;
  let start = row * n;
  let rank = rank_of(lane);

  var most = Numbers();
  for (var i = rank; i < n; i += LOADS * LANES) {
    for (var j = 0u; j < LOADS; j++) {
      most = max(most, abs(x[start + min(i + j * LANES, n - 1u)])); // behind the end the last once more
    }
  }
  let exponent = bitcast<u32>(max_of_row(lane, max_of(most))) >> 23u;
  if (rank == 0u) {
    // At most 2^126: that of smaller numbers could not be undone.
    y[row] = bitcast<f32>(min(2u * BIAS + TOP - exponent, 2u * BIAS - 1u) << 23u);
  }
}
`,
  "rows/layer_norm": `// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, for each row, with biased variance.
//
// x: f32[R, D]  weight, bias: f32[D]  ->  y: f32[R, D]
// LANES threads per row, as in the slot row; they stride over it, with LOADS loads in flight. Two passes (the mean, then the
// squared distances from it): E[x²] - E[x]² cancels when the mean is large. The mean of the distances is the rounding error of
// the mean in the first pass, and is subtracted. Squares are accumulated in runs of RUN, then the runs are added: a massive
// one costs the digits of its run only.
// Dispatch: ceil(R · LANES / WG) workgroups, folded. Needs: nothing, or what the slot row needs.
// Source: Ba et al. 2016, Layer Normalization; torch.nn.LayerNorm.
// @use row = row_workgroup
// @use numbers = numbers_vec4
override WG: u32 = 64;
override LOADS: u32 = 1; // at most 4: their latencies overlap on GPUs
const RUN = 16u;

struct Params {
  rows: u32,
  D: u32,
  eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<Numbers>;
@group(0) @binding(1) var<storage, read> weight: array<Numbers>;
@group(0) @binding(2) var<storage, read> bias: array<Numbers>;
@group(0) @binding(3) var<storage, read_write> y: array<Numbers>;
@group(0) @binding(8) var<uniform> params: Params;

// Whether a load is within the row's n; a single one always is, by the loop.
fn is_inside(at: u32, n: u32) -> bool {
  return LOADS == 1u || at < n;
}

fn inside(at: u32, n: u32) -> u32 {
  return select(n - 1u, at, is_inside(at, n));
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = row_of(workgroup_id.x + workgroup_id.y * num_workgroups.x, lane);
  if (row >= params.rows) {
    return;
  }
  let n = params.D / WIDTH;
  let start = row * n;
  let rank = rank_of(lane);

  var sums = Numbers();
  for (var i = rank; i < n; i += LOADS * LANES) {
    for (var j = 0u; j < LOADS; j++) {
      let at = i + j * LANES;
      sums += select(Numbers(), x[start + inside(at, n)], is_inside(at, n));
    }
  }
  let mean = sum_of_row(lane, sum_of(sums)) / f32(params.D);

  var distances = Numbers();
  var squares = Numbers();
  for (var first = rank; first < n; first += RUN * LANES) {
    var run = Numbers();
    let end = min(first + RUN * LANES, n);
    for (var i = first; i < end; i += LOADS * LANES) {
      for (var j = 0u; j < LOADS; j++) {
        let at = i + j * LANES;
        let distance = select(Numbers(), x[start + inside(at, n)] - mean, is_inside(at, n));
        distances += distance;
        run += distance * distance;
      }
    }
    squares += run;
  }
  let means = sums_of_row(lane, vec2<f32>(sum_of(distances), sum_of(squares))) / f32(params.D);
  let missed = means.x;
  let variance = means.y - missed * missed;
  let scale = 1.0 / sqrt(select(variance, 0.0, variance < 0.0) + params.eps); // not max(), which may lose a NaN

  for (var i = rank; i < n; i += LOADS * LANES) {
    var numbers: array<Numbers, 4>;
    for (var j = 0u; j < LOADS; j++) {
      let at = inside(i + j * LANES, n);
      numbers[j] = ((x[start + at] - mean) - missed) * scale * weight[at] + bias[at];
    }
    for (var j = 0u; j < LOADS; j++) {
      if (is_inside(i + j * LANES, n)) {
        y[start + i + j * LANES] = numbers[j];
      }
    }
  }
}
`,
  "rows/log_softmax": `// y = x - max(x) - ln Σ e^(x - max(x)), for each row.
//
// x: f32[R, V], also compared as bits  ->  y: f32[R, V], as bits
// One workgroup per row; its threads stride over V. Minus infinity stays minus infinity. A row with a NaN or plus infinity, or
// of minus infinity only, becomes NaN. These are detected by their bits, equally on every driver.
// Dispatch: R workgroups, folded. Needs: nothing; subgroups of any size with reduce_subgroups.
// Source: torch.log_softmax.
// @use math
// @use reduce = reduce_tree
// @use log_sum_exp
override WG: u32 = 64;

struct Params {
  rows: u32,
  V: u32,
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  if (row >= params.rows) {
    return;
  }
  let start = row * params.V;
  let of_row = log_sum_exp(start, params.V, lane);

  for (var i = lane; i < params.V; i += WG) {
    let bits = x[start + i];
    let value = bitcast<u32>((bitcast<f32>(bits) - of_row.largest) - of_row.log_sum);
    y[start + i] = select(NAN, select(value, MINUS_INFINITY, bits == MINUS_INFINITY), of_row.finite);
  }
}
`,
  "rows/parts/code_int4": `// int4: code = floor((w - min) / scale + 1/2), min = the smallest number rounded to bf16, scale = (max - min) / 15 rounded to
// bf16. Numbers more than 28 powers of two below the largest |w| count as zero (FAR of tensor/quantize.ts), which keeps all
// differences exact. Contract: code_int8.
const CODE_WORDS = 4u;

// How a block's numbers are encoded. unit scales them to units of half the last bit of the scale. min is split into an integer,
// whose differences f32 represents, and a fraction in units of 2^-30, whose differences i32 represents.
struct Coder {
  far: u32,
  unit: f32,
  min_whole: f32,
  min_fraction: i32,
  half: f32,
  inverse: f32,
}

fn words_of_row(blocks: u32) -> u32 {
  return (CODE_WORDS + 1u) * blocks;
}

// Maps the bits of f32 to integers that are ordered as the numbers are, and back.
fn ordered(bits: vec4<u32>) -> vec4<i32> {
  let signed = bitcast<vec4<i32>>(bits);
  return signed ^ ((signed >> vec4<u32>(31u)) & vec4<i32>(0x7fffffff));
}

fn without_far(numbers: vec4<u32>, far: u32) -> vec4<u32> {
  return select(numbers, vec4<u32>(0u), (numbers & vec4<u32>(0x7fffffffu)) < vec4<u32>(far));
}

// Stores the codes of a block at y[at] and returns its scale and min.
fn encode(numbers: array<vec4<u32>, 8>, at: u32) -> u32 {
  var smallest = vec4<i32>(0x7fffffff);
  var largest = vec4<i32>(-0x7fffffff);
  for (var i = 0u; i < 8u; i++) {
    let keys = ordered(numbers[i]);
    smallest = min(smallest, keys);
    largest = max(largest, keys);
  }
  let first = min(min(smallest.x, smallest.y), min(smallest.z, smallest.w));
  let last = max(max(largest.x, largest.y), max(largest.z, largest.w));
  let ends = bitcast<vec4<u32>>(ordered(bitcast<vec4<u32>>(vec4<i32>(first, last, 0, 0))));
  let size = max(ends.x & 0x7fffffffu, ends.y & 0x7fffffffu);
  let far = (max(size >> 23u, 29u) - 28u) << 23u;
  let bounds = without_far(ends, far);

  var scales = 0x7fc00000u; // NaN, so that a damaged weight is noticed
  var coder = Coder(0xffffffffu, 0.0, 0.0, 0, 1.5, 0.5);
  let min_bits = to_bf16(bounds.x);
  if (size < NOT_FINITE && (min_bits & 0x7f80u) != 0x7f80u) {
    let scale = scale_of(min_bits << 16u, bounds.y);
    scales = scale | (min_bits << 16u);
    if (scale != 0u) {
      let unit = bitcast<f32>((262u - (scale >> 7u)) << 23u);
      let S = f32((scale & 0x7fu) | 0x80u);
      let from_zero = bitcast<f32>(min_bits << 16u) * unit;
      let whole = trunc(from_zero);
      coder = Coder(far, unit, whole, i32((from_zero - whole) * 0x1p30), S + 0.5, 0.5 / S);
    }
  }
  for (var i = 0u; i < 4u; i++) {
    y[at + i] = pack4xU8(codes_of(numbers[2u * i], coder)) | (pack4xU8(codes_of(numbers[2u * i + 1u], coder)) << 4u);
  }
  return scales;
}

fn codes_of(numbers: vec4<u32>, coder: Coder) -> vec4<u32> {
  let size = bitcast<vec4<f32>>(without_far(numbers, coder.far)) * coder.unit;
  var from_min = floor(size) - coder.min_whole;
  if (coder.min_fraction != 0) { // then |min| < scale / 2: negative numbers have code 0, truncated or not
    let whole = trunc(size);
    let fraction = vec4<i32>((size - whole) * 0x1p30) - vec4<i32>(coder.min_fraction);
    from_min = (whole - coder.min_whole) + vec4<f32>(fraction >> vec4<u32>(30u));
  }
  let code = floor((from_min + coder.half) * coder.inverse);
  return bitcast<vec4<u32>>(clamp(code, vec4<f32>(0.0), vec4<f32>(15.0)) + TO_INT);
}

// The scale of numbers in [low, high]; 0 if the range is empty or tiny.
fn scale_of(low: u32, high: u32) -> u32 {
  let keys = ordered(vec4<u32>(low, high, 0u, 0u));
  if (keys.x >= keys.y) {
    return 0u;
  }
  // high - low in units of 2^-30 times the larger one's power of two; at most a fraction of the smaller one is cut off.
  let larger = max(low & 0x7fffffffu, high & 0x7fffffffu);
  let smaller = min(low & 0x7fffffffu, high & 0x7fffffffu);
  let down = min((larger >> 23u) - (smaller >> 23u), 31u);
  let bits = significand_of(smaller) << 7u;
  let addend = bits >> down;
  let inexact = (addend << down) != bits;
  let is_sum = ((low ^ high) >> 31u) == 1u;
  let whole = significand_of(larger) << 7u;
  let range = select(whole - addend - u32(inexact), whole + addend, is_sum);
  let zeros = select(countLeadingZeros(range), 0u, inexact); // an inexact range is at least 2^29
  let exponent = i32(larger >> 23u) - 157 - i32(zeros);
  let n = range << zeros;
  if (i32(31u - countLeadingZeros(n)) + exponent < -100) { // TINY
    return 0u;
  }
  return bf16_of_quotient(n, inexact, 15u, exponent);
}

// One word per block: scale and min.
fn store_scales(at: u32, block: u32, scales: vec2<u32>, is_pair: bool) {
  y[at + block] = scales.x;
  if (is_pair) {
    y[at + block + 1u] = scales.y;
  }
}
`,
  "rows/parts/code_int8": `// int8: code = floor(w / scale + 1/2), scale = max |w| / 127 rounded to bf16.
// @slot code: CODE_WORDS, words_of_row(blocks: u32) -> u32, encode(numbers: array<vec4<u32>, 8>, at: u32) -> u32
// @slot code: store_scales(at: u32, block: u32, scales: vec2<u32>, is_pair: bool)
const CODE_WORDS = 8u; // of a block

fn words_of_row(blocks: u32) -> u32 {
  return CODE_WORDS * blocks + (blocks + 1u) / 2u;
}

// Stores the codes of a block at y[at] and returns its scale.
fn encode(numbers: array<vec4<u32>, 8>, at: u32) -> u32 {
  var largest = vec4<u32>(0u);
  for (var i = 0u; i < 8u; i++) {
    largest = max(largest, numbers[i] & vec4<u32>(0x7fffffffu));
  }
  let most = max(max(largest.x, largest.y), max(largest.z, largest.w));
  let field = most >> 23u;
  var scale = select(0u, 0x7fc0u, most >= NOT_FINITE); // NaN, so that a damaged weight is noticed
  var kept = 0u;
  var unit = 0.0;
  var S = 1.0;
  if (field >= 27u && most < NOT_FINITE) { // TINY of tensor/quantize.ts
    scale = bf16_of_quotient(significand_of(most) << 8u, false, 127u, i32(field) - 158);
    kept = 0xffffffffu;
    unit = bitcast<f32>((262u - (scale >> 7u)) << 23u);
    S = f32((scale & 0x7fu) | 0x80u);
  }
  let inverse = 0.5 / S;
  for (var i = 0u; i < 8u; i++) {
    let size = floor(bitcast<vec4<f32>>(numbers[i] & vec4<u32>(kept)) * unit);
    y[at + i] = pack4xI8(bitcast<vec4<i32>>(floor((size + (S + 0.5)) * inverse) + TO_INT));
  }
  return scale;
}

// Two scales per word, the first in the low half.
fn store_scales(at: u32, block: u32, scales: vec2<u32>, is_pair: bool) {
  y[at + block / 2u] = scales.x | (scales.y << 16u);
}
`,
  "rows/parts/log_sum_exp": `// ln Σ e^(x - max(x)) of a row of x: array<u32>, the bits of f32, over the workgroup's threads; with parts math and reduce.
// Each thread sums runs of 32 numbers, then the runs: the sum's relative error is the logarithm's error, and one long f32 sum
// would lose digits. Minus infinity adds nothing. All comparisons are of bits, and so equal on every driver.
const RUN = 32u;
const MINUS_INFINITY = 0xff800000u;
const NAN = 0x7fc00000u;

struct RowSum {
  finite: bool, // else the row has a NaN or plus infinity, or only minus infinity, and the other fields are invalid
  largest: f32,
  log_sum: f32,
}

// An order-preserving integer of the float with these bits; largest for NaN.
fn key(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return 0xffffffffu;
  }
  return select(0x80000000u + magnitude, 0x80000000u - magnitude, bits > 0x80000000u);
}

// The float whose key this is.
fn float_of(key: u32) -> f32 {
  return bitcast<f32>(select((0x80000000u - key) | 0x80000000u, key - 0x80000000u, key >= 0x80000000u));
}

// Of x[start … start + V - 1]. All threads call it.
fn log_sum_exp(start: u32, V: u32, lane: u32) -> RowSum {
  var largest = 0u;
  for (var i = lane; i < V; i += WG) {
    largest = max(largest, key(x[start + i]));
  }
  let top = best_over_threads(lane, Candidate(largest, lane)).key;
  let finite = top > key(MINUS_INFINITY) && top < key(0x7f800000u);
  let shift = select(0.0, float_of(top), finite);

  var sum = 0.0;
  for (var first = lane; first < V; first += RUN * WG) {
    var run = 0.0;
    for (var i = first; i < min(first + RUN * WG, V); i += WG) {
      let bits = x[start + i];
      if (finite && bits != MINUS_INFINITY) {
        run += exp_accurate(bitcast<f32>(bits) - shift);
      }
    }
    sum += run;
  }
  return RowSum(finite, shift, log_accurate(sum_over_threads(lane, sum)));
}
`,
  "rows/parts/numbers_scalar": `// The vector type of a row kernel: one number. For rows of any length.
// @use math
alias Numbers = f32;
const WIDTH = 1u;

fn sum_of(numbers: Numbers) -> f32 {
  return numbers;
}

fn max_of(numbers: Numbers) -> f32 {
  return numbers;
}

fn exp_of(numbers: Numbers) -> Numbers {
  return exp_negative(numbers);
}
`,
  "rows/parts/numbers_vec4": `// The vector type of a row kernel: four contiguous numbers, for rows whose length is a multiple of 4.
// @slot numbers: Numbers, WIDTH, sum_of(numbers: Numbers) -> f32, max_of(numbers: Numbers) -> f32
// @slot numbers: exp_of(numbers: Numbers) -> Numbers
// @use math
alias Numbers = vec4<f32>;
const WIDTH = 4u;

fn sum_of(numbers: Numbers) -> f32 {
  return numbers.x + numbers.y + numbers.z + numbers.w;
}

fn max_of(numbers: Numbers) -> f32 {
  return max(max(numbers.x, numbers.y), max(numbers.z, numbers.w));
}

// e^x for x at most 0.
fn exp_of(numbers: Numbers) -> Numbers {
  return Numbers(
    exp_negative(numbers.x),
    exp_negative(numbers.y),
    exp_negative(numbers.z),
    exp_negative(numbers.w),
  );
}
`,
  "rows/parts/row_invocation": `// One invocation per row, WG rows per workgroup: for software adapters without subgroups, for the reasons in row_subgroup.
const LANES = 1u; // threads of a row

fn row_of(group: u32, lane: u32) -> u32 {
  return group * WG + lane;
}

// A thread's rank among those of its row.
fn rank_of(lane: u32) -> u32 {
  return 0u;
}

fn sum_of_row(lane: u32, value: f32) -> f32 {
  return value;
}

fn sums_of_row(lane: u32, pair: vec2<f32>) -> vec2<f32> {
  return pair;
}

fn max_of_row(lane: u32, value: f32) -> f32 {
  return value;
}
`,
  "rows/parts/row_subgroup": `// One subgroup per row, which is the whole workgroup: for software adapters, where barriers are slow (row_workgroup takes 4
// times as long there) and take seconds to compile. Needs: subgroups of exactly WG threads.
// @use subgroup_reduce
enable subgroups;
override SG: u32 = WG;
override LANES: u32 = WG; // threads of a row

fn row_of(group: u32, lane: u32) -> u32 {
  return group;
}

// A thread's rank among those of its row.
fn rank_of(lane: u32) -> u32 {
  return lane;
}

fn sum_of_row(lane: u32, value: f32) -> f32 {
  return sum_over_lanes(value);
}

fn sums_of_row(lane: u32, pair: vec2<f32>) -> vec2<f32> {
  return vec2<f32>(sum_over_lanes(pair.x), sum_over_lanes(pair.y));
}

fn max_of_row(lane: u32, value: f32) -> f32 {
  return max_over_lanes(value);
}
`,
  "rows/parts/row_workgroup": `// One workgroup per row: reductions over its threads, which all of them call, and whose result all of them get.
// @slot row: LANES, row_of(group: u32, lane: u32) -> u32, rank_of(lane: u32) -> u32
// @slot row: sum_of_row(lane: u32, value: f32) -> f32, sums_of_row(lane: u32, pair: vec2<f32>) -> vec2<f32>
// @slot row: max_of_row(lane: u32, value: f32) -> f32
// @use reduce = reduce_tree
override LANES: u32 = WG; // threads of a row

fn row_of(group: u32, lane: u32) -> u32 {
  return group;
}

// A thread's rank among those of its row. Not lane % LANES, which is a division on software adapters.
fn rank_of(lane: u32) -> u32 {
  return lane;
}

fn sum_of_row(lane: u32, value: f32) -> f32 {
  return sum_over_threads(lane, value);
}

fn sums_of_row(lane: u32, pair: vec2<f32>) -> vec2<f32> {
  return sums_over_threads(lane, pair);
}

fn max_of_row(lane: u32, value: f32) -> f32 {
  return max_over_threads(lane, value);
}
`,
  "rows/parts/source_bf16": `// Loads a block of bf16, the upper half of an f32. Contract: source_f32.
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;

const NOT_FINITE = 0x7f800000u;

fn numbers_of(block: u32) -> array<vec4<u32>, 8> {
  var numbers: array<vec4<u32>, 8>;
  for (var i = 0u; i < 4u; i++) {
    let words = x[4u * block + i];
    numbers[2u * i] = widen(words.xy);
    numbers[2u * i + 1u] = widen(words.zw);
  }
  return numbers;
}

fn widen(words: vec2<u32>) -> vec4<u32> {
  return vec4<u32>(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u);
}
`,
  "rows/parts/source_f16": `// Loads a block of f16, converted with integers: unpack2x16float may flush subnormal numbers. Contract: source_f32.
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;

const NOT_FINITE = 0x47800000u; // 2^16: infinities are converted like finite numbers

fn numbers_of(block: u32) -> array<vec4<u32>, 8> {
  var numbers: array<vec4<u32>, 8>;
  for (var i = 0u; i < 4u; i++) {
    let words = x[4u * block + i];
    numbers[2u * i] = widen(words.xy);
    numbers[2u * i + 1u] = widen(words.zw);
  }
  return numbers;
}

// The exponent's bias is 127 instead of 15. A subnormal number is computed as 2^-14 · (1 + fraction) - 2^-14, which is exact.
fn widen(words: vec2<u32>) -> vec4<u32> {
  let halves = vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u);
  let size = (halves & vec4<u32>(0x7fffu)) << vec4<u32>(13u);
  let normal = size + vec4<u32>(112u << 23u);
  let subnormal = bitcast<vec4<u32>>(bitcast<vec4<f32>>(normal + vec4<u32>(1u << 23u)) - vec4<f32>(0x1p-14));
  return select(normal, subnormal, size < vec4<u32>(1u << 23u)) | ((halves & vec4<u32>(0x8000u)) << vec4<u32>(16u));
}
`,
  "rows/parts/source_f32": `// Loads a block of 32 numbers of a file as bits of f32. |x| >= NOT_FINITE, as bits, is an infinity or NaN.
// @slot source: x, NOT_FINITE, numbers_of(block: u32) -> array<vec4<u32>, 8>
@group(0) @binding(0) var<storage, read> x: array<vec4<u32>>;

const NOT_FINITE = 0x7f800000u;

fn numbers_of(block: u32) -> array<vec4<u32>, 8> {
  var numbers: array<vec4<u32>, 8>;
  for (var i = 0u; i < 8u; i++) {
    numbers[i] = x[8u * block + i];
  }
  return numbers;
}
`,
  "rows/quantize": `// y = the rows of x quantized to int8 or int4 in blocks of 32 numbers, with the same bits as quantizeRows of tensor/quantize.ts,
// which describes the layout.
//
// x: u32[rows · K · bytes / 4], rows of a file, f32, f16 or bf16 by the part source, K a multiple of 32
// ->  y: u32[N, words of a row], rows first_row … first_row + rows - 1
// One invocation for two neighbouring blocks of a row: in int8 their scales share a word.
// Dispatch: ceil(rows · ceil(blocks / 2) / WG), folded. Needs: nothing.
//
// The bits must not depend on the adapter, but WGSL allows quotients an error of 2.5 ULP, sums and products either of the two
// nearest results, and subnormal numbers to be flushed to zero. Therefore no bit depends on a rounding:
// - Scales are computed with integers (bf16_of_quotient).
// - A code is floor((w - min) / scale + 1/2), with min = 0 in int8. The scale is S · 2^e, S an integer of 8 bits. In units of
//   2^e / 2 it is 2 S, and the code is floor((Y + S) / 2 S) with Y = floor(w - min), exactly, because 2 S and S are integers.
//   Everything up to Y is exact: a multiplication by a power of two, trunc, differences that f32 represents. Then
//   (Y + S + 1/2) / 2 S is at least 1 / 4 S >= 1/1020 away from any integer, and its f32 error is below 1/8000.
// @use source = source_f32
// @use code = code_int8
override WG: u32 = 64;
const TO_INT = 0x1.8p23; // x + TO_INT has an integer x, |x| < 2^22, in its lowest bits

struct Params {
  rows: u32,
  blocks: u32, // of a row
  first_row: u32,
}

@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

// n / D · 2^exponent rounded to f32, then to bf16, to nearest even: the bits. n >= 2^29, so that the quotient has at least 25
// bits. inexact: a fraction of n was cut off.
fn bf16_of_quotient(n: u32, inexact: bool, D: u32, exponent: i32) -> u32 {
  let q = n / D;
  let is_whole = n == q * D && !inexact;
  let cut = 8u - countLeadingZeros(q);
  let rest = q & ((1u << cut) - 1u);
  let half = 1u << (cut - 1u);
  let kept = q >> cut;
  let is_up = rest > half || (rest == half && (!is_whole || kept % 2u == 1u));
  // 2^23 is f32's hidden bit. A carry out of the significand increments the exponent.
  return to_bf16((u32(150 + exponent + i32(cut)) << 23u) + (kept + u32(is_up)) - (1u << 23u));
}

// The bits of a finite f32 rounded to bf16, to nearest even.
fn to_bf16(bits: u32) -> u32 {
  return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

// |x| = significand · 2^(max(exponent field, 1) - 150), for the bits of an f32 x.
fn significand_of(bits: u32) -> u32 {
  return (bits & 0x7fffffu) | select(0u, 0x800000u, (bits & 0x7f800000u) != 0u);
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WG + lane;
  let pairs = (params.blocks + 1u) / 2u;
  let row = i / pairs;
  if (row >= params.rows) {
    return;
  }
  let block = 2u * (i % pairs);
  let start = (params.first_row + row) * words_of_row(params.blocks);
  let first = row * params.blocks + block;
  let is_pair = block + 1u < params.blocks;
  var scales = vec2<u32>(encode(numbers_of(first), start + block * CODE_WORDS), 0u);
  if (is_pair) {
    scales.y = encode(numbers_of(first + 1u), start + (block + 1u) * CODE_WORDS);
  }
  store_scales(start + params.blocks * CODE_WORDS, block, scales, is_pair);
}
`,
  "rows/rms_norm": `// y = x / sqrt(mean(x²) + eps) * weight, for each row.
//
// x: f32[R, D]  weight: f32[D]  ->  y: f32[R, D]
// LANES threads per row, as in the slot row; they stride over it, with LOADS loads in flight. Squares are accumulated in runs
// of RUN, then the runs are added: a massive one costs the digits of its run only.
// Dispatch: ceil(R · LANES / WG) workgroups, folded. Needs: nothing, or what the slot row needs.
// Source: Zhang and Sennrich 2019, Root Mean Square Layer Normalization; transformers' LlamaRMSNorm and T5LayerNorm.
// @use row = row_workgroup
// @use numbers = numbers_vec4
override WG: u32 = 64;
override LOADS: u32 = 1; // at most 4: their latencies overlap on GPUs
const RUN = 16u;

struct Params {
  rows: u32,
  D: u32,
  eps: f32,
}

@group(0) @binding(0) var<storage, read> x: array<Numbers>;
@group(0) @binding(1) var<storage, read> weight: array<Numbers>;
@group(0) @binding(2) var<storage, read_write> y: array<Numbers>;
@group(0) @binding(8) var<uniform> params: Params;

// Whether a load is within the row's n; a single one always is, by the loop.
fn is_inside(at: u32, n: u32) -> bool {
  return LOADS == 1u || at < n;
}

fn inside(at: u32, n: u32) -> u32 {
  return select(n - 1u, at, is_inside(at, n));
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = row_of(workgroup_id.x + workgroup_id.y * num_workgroups.x, lane);
  if (row >= params.rows) {
    return;
  }
  let n = params.D / WIDTH;
  let start = row * n;
  let rank = rank_of(lane);

  var squares = Numbers();
  for (var first = rank; first < n; first += RUN * LANES) {
    var run = Numbers();
    let end = min(first + RUN * LANES, n);
    for (var i = first; i < end; i += LOADS * LANES) {
      for (var j = 0u; j < LOADS; j++) {
        let at = i + j * LANES;
        let numbers = x[start + inside(at, n)];
        run += select(Numbers(), numbers * numbers, is_inside(at, n));
      }
    }
    squares += run;
  }
  let scale = 1.0 / sqrt(sum_of_row(lane, sum_of(squares)) / f32(params.D) + params.eps);

  for (var i = rank; i < n; i += LOADS * LANES) {
    var numbers: array<Numbers, 4>;
    for (var j = 0u; j < LOADS; j++) {
      let at = inside(i + j * LANES, n);
      numbers[j] = x[start + at] * scale * weight[at];
    }
    for (var j = 0u; j < LOADS; j++) {
      if (is_inside(i + j * LANES, n)) {
        y[start + i + j * LANES] = numbers[j];
      }
    }
  }
}
`,
  "rows/softmax": `// y = e^(x - max(x)) / Σ e^(x - max(x)), for each row.
//
// x: f32[R, S]  ->  y: f32[R, S]
// LANES threads per row, as in the slot row; they stride over it, with LOADS loads in flight. The exponentials are stored in y
// while they are summed, in runs of RUN, then the runs: one long f32 sum would lose digits. Minus infinity counts as the
// lowest finite number, so that a row of minus infinity gives a uniform distribution instead of 0 / 0. A NaN makes its whole
// row NaN, on drivers that compute with NaN.
// Dispatch: ceil(R · LANES / WG) workgroups, folded. Needs: nothing, or what the slot row needs.
// Source: torch.softmax, but for rows of minus infinity.
// @use row = row_workgroup
// @use numbers = numbers_vec4
override WG: u32 = 64;
override LOADS: u32 = 1; // at most 4: their latencies overlap on GPUs
const RUN = 16u;
const LOWEST = -3.4028234663852886e38;

struct Params {
  rows: u32,
  S: u32,
}

@group(0) @binding(0) var<storage, read> x: array<Numbers>;
@group(0) @binding(1) var<storage, read_write> y: array<Numbers>;
@group(0) @binding(8) var<uniform> params: Params;

// Whether a load is within the row's n; a single one always is, by the loop.
fn is_inside(at: u32, n: u32) -> bool {
  return LOADS == 1u || at < n;
}

fn inside(at: u32, n: u32) -> u32 {
  return select(n - 1u, at, is_inside(at, n));
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = row_of(workgroup_id.x + workgroup_id.y * num_workgroups.x, lane);
  if (row >= params.rows) {
    return;
  }
  let n = params.S / WIDTH;
  let start = row * n;
  let rank = rank_of(lane);

  var most = Numbers(LOWEST);
  for (var i = rank; i < n; i += LOADS * LANES) {
    for (var j = 0u; j < LOADS; j++) {
      most = max(most, x[start + inside(i + j * LANES, n)]);
    }
  }
  let largest = max_of_row(lane, max_of(most));

  var sums = Numbers();
  for (var first = rank; first < n; first += RUN * LANES) {
    var run = Numbers();
    let end = min(first + RUN * LANES, n);
    for (var i = first; i < end; i += LOADS * LANES) {
      var numbers: array<Numbers, 4>;
      for (var j = 0u; j < LOADS; j++) {
        numbers[j] = x[start + inside(i + j * LANES, n)];
      }
      for (var j = 0u; j < LOADS; j++) {
        if (is_inside(i + j * LANES, n)) {
          // Not max(), which may lose a NaN.
          let e = exp_of(select(numbers[j], Numbers(LOWEST), numbers[j] < Numbers(LOWEST)) - largest);
          y[start + i + j * LANES] = e;
          run += e;
        }
      }
    }
    sums += run;
  }
  let sum = sum_of_row(lane, sum_of(sums));

  for (var i = rank; i < n; i += LOADS * LANES) {
    var numbers: array<Numbers, 4>;
    for (var j = 0u; j < LOADS; j++) {
      numbers[j] = y[start + inside(i + j * LANES, n)] / sum;
    }
    for (var j = 0u; j < LOADS; j++) {
      if (is_inside(i + j * LANES, n)) {
        y[start + i + j * LANES] = numbers[j];
      }
    }
  }
}
`,
  "rows/softmax_subgroup": `// y = e^(x - max(x)) / Σ e^(x - max(x)), for each row.
//
// x: f32[R, S]  ->  y: f32[R, S]
// A workgroup is one subgroup of SG lanes, which stride over a row: for software adapters, where barriers are slow
// (softmax.wgsl takes 5 times as long there). A load of four numbers costs as much as of one there, and a row may begin at any
// offset: so groups of four are counted from the buffer's start, and up to three numbers before the first whole group and
// after the last are loaded by one lane each. Infinities and NaN as in softmax.wgsl.
// Dispatch: R workgroups, folded. Needs: subgroups of exactly SG lanes.
enable subgroups;
// @use subgroup_reduce
// @use math
override SG: u32 = 8;

const LOWEST = -3.4028234663852886e38;

struct Params {
  rows: u32,
  S: u32,
}

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(8) var<uniform> params: Params;

// Not max(), which may lose a NaN.
fn exp_below(value: f32, largest: f32) -> f32 {
  return exp_negative(select(value, LOWEST, value < LOWEST) - largest);
}

struct Row {
  start: u32,
  end: u32,
  first: u32, // whole group
  last: u32, // behind the last whole group
}

fn row_at(start: u32, end: u32) -> Row {
  let first = (start + 3u) / 4u;
  return Row(start, end, first, max(end / 4u, first));
}

// The index of number k of up to six outside of whole groups; end or beyond if there is none.
fn edge(row: Row, k: u32) -> u32 {
  if (k < 3u) {
    return select(row.end, row.start + k, row.start + k < 4u * row.first);
  }
  return 4u * row.last + k - 3u;
}

@compute @workgroup_size(SG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let index = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  if (index >= params.rows) {
    return;
  }
  let row = row_at(index * params.S, (index + 1u) * params.S);

  var largest = LOWEST;
  for (var i = row.first + lane; i < row.last; i += SG) {
    let numbers = x[i];
    largest = max(largest, max(max(numbers.x, numbers.y), max(numbers.z, numbers.w)));
  }
  for (var k = lane; k < 6u; k += SG) {
    let i = edge(row, k);
    if (i < row.end) {
      largest = max(largest, x[i / 4u][i % 4u]);
    }
  }
  largest = max_over_lanes(largest);

  var sums = vec4<f32>();
  for (var i = row.first + lane; i < row.last; i += SG) {
    let numbers = x[i];
    let e = vec4<f32>(
      exp_below(numbers.x, largest),
      exp_below(numbers.y, largest),
      exp_below(numbers.z, largest),
      exp_below(numbers.w, largest),
    );
    y[i] = e;
    sums += e;
  }
  for (var k = lane; k < 6u; k += SG) {
    let i = edge(row, k);
    if (i < row.end) {
      let e = exp_below(x[i / 4u][i % 4u], largest);
      y[i / 4u][i % 4u] = e;
      sums.x += e;
    }
  }
  let sum = sum_over_lanes(sums.x + sums.y + sums.z + sums.w);

  for (var i = row.first + lane; i < row.last; i += SG) {
    y[i] /= sum;
  }
  for (var k = lane; k < 6u; k += SG) {
    let i = edge(row, k);
    if (i < row.end) {
      y[i / 4u][i % 4u] /= sum;
    }
  }
}
`,
  "rows/top_k": `// The K largest of x + scores over the n rows of each prompt, largest first, the lowest index first on ties: two launches.
//
// x: f32[R, N], R = P n, as bits; or, to merge, [P, N] from the first launch: bits, and from params.ids on indices
// scores: f32[R]; not used when merging
// y: bits of the sums, then places, row · N + column with rows counted from 0 for each prompt: u32[2, R, chunks, K]. Where
// a chunk has fewer than K numbers, minus infinity at 0xffffffff follows.
//
// One workgroup per chunk of a row; its threads stride over it, and each keeps its largest. K rounds select the largest of
// these, and only the thread that had it searches its next one: cheap if K is small compared to the chunk. Floats are mapped
// to order-preserving integers, as in argmax.wgsl; NaN is larger than any number.
// Dispatch: R · chunks workgroups, folded; to merge, P. Needs: nothing; subgroups of any size with reduce_subgroups.
// @use reduce = reduce_tree
override WG: u32 = 64;

const NOTHING = 0u; // no number has this key
const MINUS_INFINITY = 0xff800000u;
const NO_PLACE = 0xffffffffu;

struct Params {
  rows: u32,
  N: u32,
  K: u32,
  n: u32, // rows of a prompt
  chunk: u32,
  chunks: u32, // of a row
  ids: u32, // where x's places begin; 0 if x is numbers
}

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> scores: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(8) var<uniform> params: Params;

// An order-preserving integer of the float with these bits: equal for -0 and 0, largest for NaN; neither 0 nor the initial key
// of the search.
fn key(bits: u32) -> u32 {
  let magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return 0xfffffffeu;
  }
  return select(0x80000000u + magnitude, 0x80000000u - magnitude, bits > 0x80000000u);
}

// x + score, as bits. Non-finite numbers are not changed.
fn sum_bits(at: u32, score: f32) -> u32 {
  let bits = x[at];
  let sum = bitcast<u32>(bitcast<f32>(bits) + score);
  return select(sum, bits, params.ids != 0u || (bits & 0x7f800000u) == 0x7f800000u);
}

// The first in order of the elements first, first + WG, … below end that come after last; places are those in x.
fn next(first: u32, end: u32, score: f32, last: Candidate) -> Candidate {
  var found = Candidate(NOTHING, NO_PLACE);
  for (var at = first; at < end; at += WG) {
    let candidate = Candidate(key(sum_bits(at, score)), at);
    if (candidate.key > found.key && is_before(last, candidate)) {
      if (params.ids == 0u || x[params.ids + at] != NO_PLACE) {
        found = candidate;
      }
    }
  }
  return found;
}

@compute @workgroup_size(WG)
fn main(
  @builtin(workgroup_id) workgroup_id: vec3<u32>,
  @builtin(num_workgroups) num_workgroups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let index = workgroup_id.x + workgroup_id.y * num_workgroups.x;
  if (index >= params.rows * params.chunks) {
    return;
  }
  let row = index / params.chunks;
  let start = row * params.N + (index % params.chunks) * params.chunk;
  let end = min(start + params.chunk, (row + 1u) * params.N);
  let score = select(scores[row], 0.0, params.ids != 0u);

  var mine = next(start + lane, end, score, Candidate(0xffffffffu, 0u));
  for (var k = 0u; k < params.K; k++) {
    let winner = best_over_threads(lane, mine);
    if (mine.place == winner.place && winner.key != NOTHING) {
      mine = next(start + lane, end, score, winner);
    }
    if (lane == 0u) {
      var bits = MINUS_INFINITY;
      var place = NO_PLACE;
      if (winner.key != NOTHING) {
        bits = sum_bits(winner.place, score);
        if (params.ids == 0u) {
          place = winner.place - (row - row % params.n) * params.N;
        } else {
          place = x[params.ids + winner.place];
        }
      }
      y[index * params.K + k] = bits;
      y[(params.rows * params.chunks + index) * params.K + k] = place;
    }
  }
}
`,
};
