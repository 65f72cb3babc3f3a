/** What Dawn prints of itself on a stderr that is a file or a socket, which gpu.node.ts cannot silence, as a test's children have. */
const NOISE = /^Warning: (?:maxDynamic|Couldn't load Vulkan|vkCreateInstance).*\n(?: {4}at .*\/dawn\/.*\n)?\n*/gm;

/** `stderr` without Dawn's warnings about a driver's limits, or about the driver it did not find before SwiftShader. */
export function withoutDawn(stderr: string): string {
  return stderr.replace(NOISE, "");
}
