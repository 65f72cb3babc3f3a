/** Importing this file gives the engine its adapters in Node, and their tuned plans. One GPU object serves the whole process. */
import { createGPU, requestBestAdapter } from "./gpu.node.ts";
import { setAdapterProvider, setTunedPlanProvider } from "./gpu.ts";
import { readTunedPlan } from "./tuned_plan.node.ts";

let gpu: GPU | undefined;

setAdapterProvider(() => {
  gpu ??= createGPU();
  return requestBestAdapter(gpu);
});

setTunedPlanProvider(readTunedPlan);
