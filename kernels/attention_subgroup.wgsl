// y[b, t, h] = softmaxₛ(scale · q[b, t, h]·k[b, s, h'] + bias[b, h, t, s]) v[b, s, h'] over the keys that query t sees, in one
// pass over them, for software drivers with subgroups. A query that sees no key gets zeros.
//
// q: f32[B, T, H, d]  k, v: f32[B, S, Hkv, d], all strided  mask: u32[B, S], 1 = visible  past: u32[1]
// bias: f32[B, H, T, S], strided  ->  y: f32[B, T, H, d]
// A workgroup is one subgroup of SG lanes. It takes TT queries of one head and walks along SG keys at a time, keeping what
// attention_fused.wgsl keeps. For the scores a lane is a key, for the values it is a number of the head, of which a lane has
// CHUNKS, SG apart. What all lanes need is loaded by one lane each and shuffled: loads are slow on these drivers.
// Dispatch: B · H · ceil(T / TT), folded. Needs: subgroups of exactly SG lanes.
enable subgroups;
// @use attention
// @use math
override SG: u32 = 8;
override TT: u32 = 8; // at most 8
override CHUNKS: u32 = 8; // ceil(d / SG), at most 32
const LOWEST = -3.4028234e38;

@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> mask: array<u32>;
@group(0) @binding(4) var<storage, read> past: array<u32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(SG)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let i = group.x + group.y * groups.x;
  let tiles = (params.T + TT - 1u) / TT;
  let t0 = (i % tiles) * TT;
  let h = (i / tiles) % params.H;
  let b = i / (tiles * params.H);
  if (b >= params.B) {
    return;
  }
  let t_last = min(t0 + TT, params.T) - 1u;

  var sums: array<array<f32, 32>, 8>;
  var largest: array<f32, 8>;
  var total: array<f32, 8>; // this lane's share of it
  for (var r = 0u; r < TT; r++) {
    largest[r] = LOWEST;
  }
  let end = key_end(t_last);
  for (var s0 = 0u; s0 < end; s0 += SG) {
    let s = s0 + lane;
    let k0 = k_start(b, min(s, end - 1u), h);
    var scores = array<f32, 8>(); // written out: see README
    for (var c0 = 0u; c0 < params.d; c0 += SG) {
      var numbers: array<f32, 8>;
      for (var r = 0u; r < TT; r++) {
        numbers[r] = q[q_start(b, min(t0 + r, t_last), h) + min(c0 + lane, params.d - 1u)];
      }
      let c_end = min(c0 + SG, params.d);
      for (var c = c0; c < c_end; c++) {
        let of_key = k[k0 + c];
        for (var r = 0u; r < TT; r++) {
          scores[r] += subgroupShuffle(numbers[r], c - c0) * of_key;
        }
      }
    }

    for (var r = 0u; r < TT; r++) {
      let sees = s < end && is_visible(b, t0 + r, s);
      var score = select(LOWEST, scores[r] * params.scale, sees);
      if (sees && params.has_bias != 0u) {
        score += bias[bias_place(b, min(t0 + r, t_last), s, h)];
      }
      let new_largest = max(largest[r], subgroupMax(score));
      let shrink = exp_accurate(largest[r] - new_largest);
      largest[r] = new_largest;
      scores[r] = select(0.0, exp_accurate(score - new_largest), sees);
      total[r] = total[r] * shrink + scores[r];
      for (var c = 0u; c < CHUNKS; c++) {
        sums[r][c] *= shrink;
      }
    }

    let s_end = min(s0 + SG, end);
    for (var j = s0; j < s_end; j++) {
      let v0 = v_start(b, j, h);
      var weight: array<f32, 8>;
      for (var r = 0u; r < TT; r++) {
        weight[r] = subgroupShuffle(scores[r], j - s0);
      }
      for (var c = 0u; c < CHUNKS; c++) {
        let of_value = v[v0 + min(c * SG + lane, params.d - 1u)];
        for (var r = 0u; r < TT; r++) {
          sums[r][c] += weight[r] * of_value;
        }
      }
    }
  }

  for (var r = 0u; r < TT; r++) {
    let sum = subgroupAdd(total[r]);
    let inverse = select(1.0 / sum, 0.0, sum == 0.0);
    let at = ((b * params.T + t0 + r) * params.H + h) * params.d;
    for (var c = 0u; c < CHUNKS; c++) {
      if (t0 + r < params.T && c * SG + lane < params.d) {
        y[at + c * SG + lane] = sums[r][c] * inverse;
      }
    }
  }
}
