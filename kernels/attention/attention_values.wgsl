// y[b, t, h, i] = Σₛ p[b, h, t, s] v[b, s, h', i] over the keys that query t sees. The last of the three steps of composed
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
