// y = s after steps of s = a s + b, in CHAINS chains of four: measures arithmetic throughput.
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
