/**
 * The package's entry point `instructblip-webgpu/worker`: models in a worker, so that a page stays free. The worker's script calls
 * answerCalls(), the page connect(), which has the library's names by messages.
 */
export { connect, WorkerClient } from "./worker/client.ts";
export type { CallOptions, WorkerLike } from "./worker/connection.ts";
export type { Calls, Context, ModelFacts, ProcessorFacts } from "./worker/messages.ts";
export type {
  Local,
  RemoteAnyModel,
  RemoteBaseModel,
  RemoteBlip2Model,
  RemoteFrom,
  RemoteFunctions,
  RemoteGenerateOptions,
  RemoteImageModel,
  RemoteImageTextToText,
  RemoteImageToText,
  RemoteInputs,
  Remotely,
  RemoteModel,
  RemoteModelClass,
  RemoteModelOptions,
  RemotePipelineOptions,
  RemotePretrained,
  RemoteProcessor,
  RemoteProcessorOptions,
  RemoteQFormerModel,
  RemoteRetrievalModel,
  RemoteTensor,
  RemoteTextModel,
  RemoteTokenizer,
  RemoteVideoModel,
  RemoteVisionModel,
  RemoteVisualQuestionAnswering,
} from "./worker/remote_types.ts";
export { answerCalls, type Handlers, type WorkerScope } from "./worker/server.ts";
export { TextIteratorStreamer } from "./worker/text_streamer.ts";
