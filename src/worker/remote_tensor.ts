/** Outputs of a worker's models for the page: tensors stay in the worker until they are read. */
import type { PostedTensor, Remote } from "./messages.ts";
import { isPlain, setRemote } from "./posted.ts";
import type { RemoteTensor } from "./remote_types.ts";

interface TensorCalls {
  read(tensor: Remote): Promise<Float32Array | Uint32Array>;
  dispose(tensor: Remote): Promise<void>;
}

/** An output, with what stands for tensors in their place. */
export function remotely(value: unknown, calls: TensorCalls): unknown {
  if (Array.isArray(value)) {
    const [first] = value;
    return typeof first === "object" && first !== null ? value.map((one) => remotely(one, calls)) : value;
  }
  if (!isPlain(value)) return value;
  if ("remote" in value) return remoteTensor(value as unknown as PostedTensor, calls);
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, remotely(one, calls)]));
}

function remoteTensor({ remote, dtype, shape }: PostedTensor, { read, dispose }: TensorCalls): RemoteTensor {
  const tensor = {
    ...{ dtype, shape },
    read: () => read({ remote }),
    dispose: () => dispose({ remote }),
  };
  return setRemote(tensor as RemoteTensor, { remote });
}
