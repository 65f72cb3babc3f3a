// y[b, t, h] = softmaxₛ(scale · q[b, t, h]·k[b, s, h'] + bias[b, h, t, s]) v[b, s, h'] over the keys that query t sees, in one
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
