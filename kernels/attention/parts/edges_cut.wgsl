// Edges between queries and keys that are cut: a cut edge is as a key that the query does not see. Contract: edges_all.
// edges: f32[B or 1, H or 1, T, S], 0 = cut
override EDGE_ROWS: u32 = 0; // 1: each row has edges of its own
override EDGE_HEADS: u32 = 0; // 1: each head has

@group(0) @binding(6) var<storage, read> edges: array<f32>;

fn has_edge(b: u32, t: u32, s: u32, h: u32) -> bool {
  let heads = select(1u, params.H, EDGE_HEADS == 1u);
  let map = b * EDGE_ROWS * heads + h * EDGE_HEADS;
  return edges[(map * params.T + t) * params.S + s] != 0.0;
}
