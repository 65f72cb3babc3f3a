/** Dawn's warnings on the stderr of child processes, which gpu.node.ts cannot silence. */
const NOISE = /^Warning: (?:maxDynamic|Couldn't load Vulkan|vkCreateInstance).*\n(?: {4}at .*\/dawn\/.*\n)?\n*/gm;

/** `stderr` without Dawn's warnings about a driver's limits, or about the driver it did not find before SwiftShader. */
export function withoutDawn(stderr: string): string {
  return stderr.replace(NOISE, "");
}
