/// <reference types="@webgpu/types" preserve="true" />
/// <reference lib="dom" preserve="true" />
// Kept in the package's types: a program in whose tsconfig neither is named compiles as well.
/** An adapter's capabilities, by which kernels are chosen. */
import type { TunedPlan } from "./variants.ts";

/**
 * A matrix shape that a subgroup multiplies by one instruction: [M, K] by [K, N] of componentType gives [M, N] of
 * resultComponentType.
 */
export interface SubgroupMatrix {
  /** As Dawn spells them: `f32`, `f16`, `i8`, … */
  readonly componentType: string;
  readonly resultComponentType: string;
  readonly M: number;
  readonly N: number;
  readonly K: number;
}

/** Not in @webgpu/types: Chromium's and Dawn's experiment, behind the feature of the same name. */
type InfoWithMatrices = GPUAdapterInfo & { readonly subgroupMatrixConfigs?: Iterable<SubgroupMatrix> };

/** All that a kernel choice may depend on. Plain data, so that `plan` is tested without a GPU. */
export interface Caps {
  readonly vendor: string;
  readonly architecture: string;
  readonly description: string;
  /** The adapter computes on the CPU (lavapipe, SwiftShader, WARP). */
  readonly isSoftware: boolean;
  readonly subgroups: boolean;
  readonly subgroupMinSize: number;
  readonly subgroupMaxSize: number;
  /** A kernel may ask for subgroups of one of these sizes. */
  readonly subgroupSizeControl: boolean;
  readonly subgroupMatrices: readonly SubgroupMatrix[];
  readonly f16: boolean;
  readonly timestamps: boolean;
  /** Bytes one binding may span: the adapter's limit, or a smaller one set to test splitting. */
  readonly maxBindingBytes: number;
  readonly maxBufferBytes: number;
  readonly maxInvocations: number;
  readonly maxWorkgroupStorageBytes: number;
  readonly maxWorkgroupsPerDimension: number;
  /** Choices measured on this adapter. */
  readonly tuned?: TunedPlan | undefined;
}

/** A feature that Chromium and Dawn show only where unsafe APIs are allowed. */
export const SUBGROUP_MATRIX = "chromium-experimental-subgroup-matrix" as GPUFeatureName;

/** Not in @webgpu/types yet. */
export const SUBGROUP_SIZE_CONTROL = "subgroup-size-control" as GPUFeatureName;

/** Reads the caps off a device. */
export function capsOf(info: InfoWithMatrices, features: GPUSupportedFeatures, limits: GPUSupportedLimits): Caps {
  return {
    vendor: info.vendor,
    architecture: info.architecture,
    // Browsers hide what would identify a machine: they give vendor and architecture only.
    description: info.description || info.device || `${info.vendor} ${info.architecture}`.trim() || "unknown adapter",
    isSoftware: isSoftwareAdapter(info),
    subgroups: features.has("subgroups"),
    subgroupMinSize: info.subgroupMinSize ?? 4,
    subgroupMaxSize: info.subgroupMaxSize ?? 128,
    subgroupSizeControl: features.has(SUBGROUP_SIZE_CONTROL),
    subgroupMatrices: features.has(SUBGROUP_MATRIX) ? [...(info.subgroupMatrixConfigs ?? [])] : [],
    f16: features.has("shader-f16"),
    timestamps: features.has("timestamp-query"),
    maxBindingBytes: Number(limits.maxStorageBufferBindingSize),
    maxBufferBytes: Number(limits.maxBufferSize),
    maxInvocations: limits.maxComputeInvocationsPerWorkgroup,
    maxWorkgroupStorageBytes: limits.maxComputeWorkgroupStorageSize,
    maxWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
  };
}

/** True for adapters that run on the CPU. Mesa's lavapipe does not always say so through `isFallbackAdapter`. */
export function isSoftwareAdapter(info: GPUAdapterInfo): boolean {
  const text = `${info.vendor} ${info.architecture} ${info.device} ${info.description}`;
  return Boolean(info.isFallbackAdapter) || /llvmpipe|lavapipe|swiftshader|software|basic render|warp/i.test(text);
}
