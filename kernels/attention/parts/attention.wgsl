// Shared by all attention kernels: Params, visibility and offsets. The kernel binds mask and past.
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
