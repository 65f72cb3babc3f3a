/** Importing this file gives the engine its adapters in Node. One GPU object serves the whole process. */
import { createGPU, requestBestAdapter } from "./gpu.node.ts";
import { setAdapterProvider } from "./gpu.ts";

let gpu: GPU | undefined;

setAdapterProvider(() => {
  gpu ??= createGPU();
  return requestBestAdapter(gpu);
});
