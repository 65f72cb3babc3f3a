/** Quantizes rows of a weight to int8 or int4 on the device, with the same bits as quantizeRows of quantize.ts. */
import { DTYPES, type FloatDType } from "../dtype.ts";
import { ShapeError } from "../errors.ts";
import { BLOCK, type QuantizedDType, rowBytes } from "../quantize.ts";
import { formatShape } from "../shape.ts";
import type { Tensor } from "../tensor.ts";

const WG = 64;

export interface QuantizeOptions {
  /** Dtype of x. */
  readonly from: FloatDType;
  readonly to: QuantizedDType;
  /** Numbers in a row; a multiple of 32. */
  readonly K: number;
  /** Rows of x. */
  readonly rows: number;
  /** Row of y for the first row of x. Default 0. */
  readonly firstRow?: number;
}

/**
 * @param x u32[n], the bytes of `rows` contiguous rows of K numbers, little-endian; may be longer
 * @param y u32[N, words of a row]; rows firstRow … firstRow + rows - 1 are written
 * @returns y
 * @throws ShapeError
 */
export function quantize(
  x: Tensor<"u32">,
  y: Tensor<"u32">,
  { from, to, K, rows, firstRow = 0 }: QuantizeOptions,
): Tensor<"u32"> {
  const words = rowBytes(to, K) / 4;
  if (K % BLOCK !== 0) throw new ShapeError(`quantize: rows of ${K} numbers are not whole blocks of ${BLOCK}`);
  const [N = 0, width] = y.shape;
  if (y.shape.length !== 2 || width !== words || firstRow + rows > N || 4 * x.size < rows * K * DTYPES[from].bytes) {
    throw new ShapeError(
      `quantize: ${rows} rows of ${K} numbers from ${formatShape(x.shape)} to row ${firstRow} of ${formatShape(y.shape)}`,
    );
  }
  const blocks = K / BLOCK;
  x.device.launch({
    kernel: "quantize",
    uses: { source: `source_${from}`, code: `code_${to}` },
    bindings: { x, y },
    params: { rows, blocks, first_row: firstRow },
    work: () => ({ bytes: rows * (K * DTYPES[from].bytes + 4 * words) }),
    workgroups: Math.ceil((rows * Math.ceil(blocks / 2)) / WG),
  });
  return y;
}
