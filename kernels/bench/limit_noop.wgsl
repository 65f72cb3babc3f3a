// An empty kernel: measures the cost of a launch.
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
