/** The worker's end of the calls of protocol.ts; the page's is page/worker_client.ts. */
import { EngineError } from "../../../src/index.ts";
import type { CallName, Calls, Failure, FromWorker, ToWorker } from "./protocol.ts";

/** What a handler may use while it works. */
export interface Context<N extends CallName> {
  readonly signal: AbortSignal;
  tell(news: Calls[N]["news"]): void;
}

export type Handlers = {
  readonly [N in CallName]: (asked: Calls[N]["asked"], context: Context<N>) => Promise<Calls[N]["result"]>;
};

/** The part of a worker's global scope that is used; lib.dom.d.ts has the page's alone. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: FromWorker): void;
}

/** Answers the page's calls, each as soon as it comes. */
export function answerCalls(handlers: Handlers, scope = self as unknown as WorkerScope): void {
  const running = new Map<number, AbortController>();
  scope.onmessage = async ({ data }) => {
    const { id } = data;
    if ("abort" in data) return running.get(id)?.abort();
    const controller = new AbortController();
    running.set(id, controller);
    const { signal } = controller;
    try {
      const handler = handlers[data.name] as Handlers[CallName];
      const tell = (news: unknown) => scope.postMessage({ id, news } as FromWorker);
      scope.postMessage({ id, result: await handler(data.asked as never, { signal, tell }) });
    } catch (error) {
      scope.postMessage({ id, failure: failureOf(error, signal.aborted) });
    } finally {
      running.delete(id);
    }
  };
}

function failureOf(error: unknown, aborted: boolean): Failure {
  const text = error instanceof Error ? error.message : String(error);
  const [message, ...more] = text.split("\n");
  const { code = "", hint = more.join(" ").trim() } = error instanceof EngineError ? error : {};
  return { code, message: message!, hint: hint ?? "", aborted };
}
