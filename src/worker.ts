/**
 * The package's entry point `instructblip-webgpu/worker`: models in a worker, so that a page stays free. The worker's script calls
 * answerCalls(), the page connect(), whose AutoProcessor and AutoModelForImageTextToText are the library's by messages.
 */
export {
  type CallOptions,
  connect,
  TextIteratorStreamer,
  WorkerClient,
  type WorkerLike,
} from "./worker/client.ts";
export type { Calls, Context, ModelFacts, ProcessorFacts } from "./worker/messages.ts";
export type {
  Local,
  RemoteFrom,
  RemoteGenerateOptions,
  RemoteInputs,
  RemoteModel,
  RemoteModelOptions,
  RemoteProcessor,
  RemoteProcessorOptions,
  RemoteTokenizer,
} from "./worker/remote_types.ts";
export { answerCalls, type Handlers, type WorkerScope } from "./worker/server.ts";
