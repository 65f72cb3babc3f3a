/** Rows for the tests of the benchmarks' arithmetic and tables. */
import type { PeerRow } from "../../bench/peers/results.ts";
import type { Row } from "../../bench/rows.ts";

export function row(changes: Partial<Row> = {}): Row {
  return {
    adapter: "Some GPU",
    vendor: "some",
    architecture: "new",
    software: false,
    cpu: "Some CPU",
    cores: 4,
    os: "Linux 6.1",
    node: "v20.0.0",
    webgpu: "0.6.2",
    commit: "abc1234",
    date: "2026-01-02T03:04:05.678Z",
    kernel: "layer_norm",
    variant: "workgroup",
    planned: true,
    shape: "vit R257 D1408",
    check: { share: 0.25 },
    first_ms: 120,
    ms: 0.0345,
    ms_min: 0.03,
    cpu_ms: 0.01,
    cpu_ms_min: 0.01,
    gpu_ms: 0.02,
    gpu_ms_min: 0.0195,
    rounds: 5,
    repetitions: 1000,
    basis: "gpu",
    launches: 1,
    flops: 0,
    bytes: 2_900_000,
    footprint: 2_900_000,
    gflops: null,
    gbs: 145,
    share: 0.4567,
    bound: "cache",
    ...changes,
  };
}

export function peerRow(changes: Partial<PeerRow> = {}): PeerRow {
  const { adapter, vendor, architecture, software, cpu, cores, os, node, webgpu, commit, date } = row({
    software: true,
  });
  return {
    ...{ adapter, vendor, architecture, software, cpu, cores, os, node, webgpu, commit, date },
    engine: "ours",
    version: "1.0",
    engine_adapter: "Some GPU",
    job: "gemm a M2 K4 N8 f32",
    kind: "gemm",
    weight: "f32",
    way: "ops",
    check: { share: 0.1 },
    first_ms: 100,
    ms: 10,
    ms_min: 9,
    cpu_ms: 20,
    cpu_ms_min: 18,
    gpu_ms: null,
    rounds: 5,
    repetitions: 3,
    flops: 128,
    bytes: 100,
    ...changes,
  };
}
