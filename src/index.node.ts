/** The package in Node: files from the file system, pictures through sharp, WebGPU from Dawn (npm `webgpu`). */

import { nodePlatform } from "./instructblip/platform.node.ts";
import { setPlatform } from "./instructblip/platform.ts";
import "./tensor/adapter.node.ts";

setPlatform(nodePlatform);

export * from "./index.ts";
export { NodeFolder, openCheckpoint, saveSafetensors } from "./tensor/source.node.ts";
