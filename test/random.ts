/** The source of random numbers that tests share with the kernels' cases. */
export { Random } from "../src/tensor/cases/support/random.ts";
