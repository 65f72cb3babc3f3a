// Weight loader, f32. A weight is [N, K] with rows padded to K4 = ceil(K / 4) groups of four; index i counts groups.
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;

fn load_weight(i: u32) -> vec4<f32> {
  return weight[i];
}
