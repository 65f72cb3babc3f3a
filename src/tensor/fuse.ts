/**
 * Lazy fusion. A matrix product is launched not when it is called but when its values are needed, so that an activation, a
 * gate or a residual that follows directly becomes its epilogue; and so is the RMS norm of few rows, so that the product that
 * follows computes it, where plan.ts says so. A model then reads as the paper does:
 *
 *   x = add(x, attention(norm(x)))        one launch for the norm and the first product, one for the last and the addition
 *   h = gelu(fc1(x))                      one for the product and its activation
 *   h = mul(silu(gate(x)), up(x))         one for both products, the activation and the multiplication
 *
 * An observer or `read` that needs the values in between gets them: that launches the product without an epilogue, or the norm.
 *
 * At most one product or norm of a device is deferred, and nothing else is recorded before it is launched: launches keep the
 * order of the calls. An epilogue gives the same bits as the separate kernel. A norm in a product does not: the sums are
 * divided instead of x.
 */
import type { Activation } from "./activation.ts";
import type { Storage } from "./device/memory.ts";
import { sizeOf } from "./shape.ts";
import { atSite, type Deferred, type Device, Tensor } from "./tensor.ts";

/** Applied to each sum of a product before it is stored. */
export interface Epilogue {
  readonly activation?: Activation | undefined;
  /** Gated linear unit: multiplies the activated sums of a paired weight's upper matrix by the sums of the lower one. */
  readonly gated?: boolean;
  /** f32[..., N], or N / 2 of a gated product, the residual, added last */
  readonly residual?: Tensor | undefined;
}

/** A product that can still take an epilogue. */
export interface Product {
  /** Of the result without an epilogue. */
  readonly shape: readonly number[];
  /** Whether the weight is paired, so that the result's halves are gate and up of a gated linear unit. */
  readonly paired: boolean;
  launch(epilogue: Epilogue): Tensor;
  /** Of image patches: puts a class token in front of them and adds positions. Absent if that is not one launch. */
  readonly asTokens?: ((class_token: Tensor, positions: Tensor) => Tensor) | undefined;
}

/** x / sqrt(mean(x²) + eps) * weight, where a product can compute it. */
export interface Norm {
  /** f32[..., D], contiguous */
  readonly x: Tensor;
  /** f32[D] */
  readonly weight: Tensor;
  readonly eps: number;
}

/** The activated gate of a deferred product; multiplied by the other half it becomes a gated product. */
interface ActivatedGate {
  readonly of: DeferredTensor;
  readonly kind: Activation;
}

/** The storage of a tensor that is not computed yet; views of the tensor share it. */
export class DeferredTensor implements Deferred {
  readonly product: Product | undefined;
  readonly gate: ActivatedGate | undefined;
  readonly norm: Norm | undefined;
  readonly #device: Device;
  readonly #launch: () => Tensor;
  /** Where it was called, not where it is launched: `Device.site`. */
  readonly #site: string;
  #storage: Storage | undefined;

  constructor(
    device: Device,
    launch: () => Tensor,
    { product, gate, norm }: { product?: Product; gate?: ActivatedGate; norm?: Norm },
  ) {
    this.#device = device;
    this.#launch = launch;
    this.#site = device.site;
    this.product = product;
    this.gate = gate;
    this.norm = norm;
  }

  get isDeferred(): boolean {
    return this.#storage === undefined;
  }

  /** Launches the product without further epilogue, or the norm, once. */
  storageOf(): Storage {
    if (this.#storage === undefined) {
      this.#device.undefer(this);
      this.#storage = this.atSite(this.#launch).storage;
    }
    return this.#storage;
  }

  /** Runs `launch`, of this or of a product that includes it, where it was called. */
  atSite<T>(launch: () => T): T {
    return atSite(this.#device, this.#site, launch);
  }
}

/** A product's result, whose launch is deferred. @param instead the deferred norm that it computes */
export function defer(device: Device, product: Product, instead?: Deferred): Tensor {
  const deferred = new DeferredTensor(device, () => product.launch({}), { product });
  device.defer(deferred, instead);
  return new Tensor(device, "f32", product.shape, deferred);
}

/** A norm's result, whose launch is deferred. */
export function deferNorm(norm: Norm, launch: () => Tensor): Tensor {
  const { device, shape } = norm.x;
  const deferred = new DeferredTensor(device, launch, { norm });
  device.defer(deferred);
  return new Tensor(device, "f32", shape, deferred);
}

/** The norm whose whole result is `x`, as rows of its own length; undefined if there is none, or it has been launched. */
export function deferredNorm(x: Tensor): Norm | undefined {
  const norm = deferredOf(x)?.norm;
  return norm && x.isContiguous && x.size === norm.x.size && x.shape.at(-1) === norm.weight.size ? norm : undefined;
}

/** activate(x) as the epilogue of the product x, or of its gate; undefined where x is neither. */
export function fuseActivation(x: Tensor, kind: Activation, launch: (x: Tensor) => Tensor): Tensor | undefined {
  const product = wholeProduct(x);
  if (product) return take(x, product, { activation: kind });
  const deferred = deferredOf(x);
  if (!deferred || halfOf(x) !== 0) return undefined;
  const activated = new DeferredTensor(x.device, () => launch(x), { gate: { of: deferred, kind } });
  x.device.defer(activated, deferred);
  return new Tensor(x.device, "f32", x.shape, activated);
}

/** a * b as one gated product, where a is its activated gate and b its other half; undefined where they are not. */
export function fuseGate(a: Tensor, b: Tensor): Tensor | undefined {
  const gate = deferredOf(a)?.gate;
  if (!gate || b.deferred !== gate.of || halfOf(b) !== 1) return undefined;
  a.device.undefer(a.deferred!);
  return gate.of.atSite(() => gate.of.product!.launch({ activation: gate.kind, gated: true }));
}

/** a + b as the epilogue of the product b; undefined where b is none. */
export function fuseResidual(a: Tensor, b: Tensor): Tensor | undefined {
  const product = wholeProduct(b);
  if (!product || a.size !== b.size) return undefined;
  return take(b, product, { residual: a.reshape(product.shape) }).reshape(a.shape);
}

/** Image tokens in one launch, if `patches` is a deferred patch embedding that can compute them; else undefined. */
export function fuseTokens(patches: Tensor, class_token: Tensor, positions: Tensor): Tensor | undefined {
  const asTokens = wholeProduct(patches)?.asTokens;
  if (!asTokens) return undefined;
  patches.device.undefer(patches.deferred!);
  return deferredOf(patches)!.atSite(() => asTokens(class_token, positions));
}

function take(x: Tensor, product: Product, epilogue: Epilogue): Tensor {
  x.device.undefer(x.deferred!);
  return deferredOf(x)!
    .atSite(() => product.launch(epilogue))
    .reshape(x.shape);
}

function deferredOf({ deferred }: Tensor): DeferredTensor | undefined {
  return deferred instanceof DeferredTensor ? deferred : undefined;
}

/** The deferred product whose whole result is `x`. */
function wholeProduct(x: Tensor): Product | undefined {
  const product = deferredOf(x)?.product;
  return product && x.isContiguous && x.size === sizeOf(product.shape) ? product : undefined;
}

/** Which half of a deferred paired product's last dimension `x` is; undefined where it is none. */
function halfOf(x: Tensor): 0 | 1 | undefined {
  const product = deferredOf(x)?.product;
  if (!product?.paired) return undefined;
  const F = product.shape.at(-1)! / 2;
  const whole = new Tensor(x.device, "f32", product.shape, x.deferred!);
  for (const half of [0, 1] as const) {
    const view = whole.narrow(whole.rank - 1, half * F, F);
    const same = (a: readonly number[], b: readonly number[]) => a.length === b.length && a.every((n, i) => n === b[i]);
    if (x.offset === view.offset && same(x.shape, view.shape) && same(x.strides, view.strides)) return half;
  }
  return undefined;
}
