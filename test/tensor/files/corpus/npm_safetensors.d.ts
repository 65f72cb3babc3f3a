/** The npm package `safetensors` has no types of its own; this is what the tests use of it. */
declare module "safetensors" {
  class SafeTensor {
    constructor(wholeFile: Uint8Array);
    readonly metadata: Map<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
    getTensor(name: string): Uint8Array;
  }
  const package_: { SafeTensor: typeof SafeTensor };
  export default package_;
}
