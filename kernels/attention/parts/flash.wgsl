// FlashAttention: softmax(scale · q kᵀ + bias) v in one pass over tiles of keys, without writing the scores to memory. With parts
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
