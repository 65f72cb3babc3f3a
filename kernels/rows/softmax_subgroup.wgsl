// y = e^(x - max(x)) / Σ e^(x - max(x)), for each row.
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
