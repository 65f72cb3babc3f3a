/** Attention probabilities on the host, as the means of heads and layers. */
import { sizes } from "../../tensor/shape.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** f64[rows, columns], row by row. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float64Array;
}

export function zeros(rows: number, columns: number): Matrix {
  return { rows, columns, data: new Float64Array(rows * columns) };
}

/** The mean of matrices of one shape. */
export function meanOf(matrices: readonly Matrix[]): Matrix {
  const mean = zeros(matrices[0]!.rows, matrices[0]!.columns);
  for (const { data } of matrices) for (let i = 0; i < data.length; i++) mean.data[i]! += data[i]! / matrices.length;
  return mean;
}

/** The means over heads. @param layers f32[B, H, M, S] each @returns of each layer B matrices [M, S] */
export async function headMeans(layers: readonly Tensor[]): Promise<Matrix[][]> {
  const means: Matrix[][] = [];
  for (const layer of layers) {
    const [B, H, rows, columns] = sizes(layer.shape, 4);
    const read = await layer.read();
    const head = (i: number) => Float64Array.from(read.subarray(i * rows * columns, (i + 1) * rows * columns));
    const heads = (b: number) => Array.from({ length: H }, (_, h) => ({ rows, columns, data: head(b * H + h) }));
    means.push(Array.from({ length: B }, (_, b) => meanOf(heads(b))));
  }
  return means;
}
