/** The package in Node: files from the file system, images through sharp, WebGPU from Dawn (npm `webgpu`). */

import { nodePlatform } from "./instructblip/pretrained/platform.node.ts";
import { setPlatform } from "./instructblip/pretrained/platform.ts";
import "./tensor/device/adapter.node.ts";

setPlatform(nodePlatform);

export * from "./index.ts";
export { type FileSource, NodeFolder, openCheckpoint, saveSafetensors } from "./tensor/files/source.node.ts";
