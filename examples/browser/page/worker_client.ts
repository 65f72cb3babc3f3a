/** The page's end of the calls of protocol.ts; the worker's is worker/calls.ts. */
import type { CallName, Calls, Failure, FromWorker, ToWorker } from "../worker/protocol.ts";

/** An error of the worker, in the page. */
export class WorkerError extends Error {
  override readonly name = "WorkerError";
  readonly code: string;
  readonly hint: string;
  /** Whether the page has aborted the call. */
  readonly aborted: boolean;

  constructor({ code, message, hint, aborted }: Failure) {
    super(message);
    this.code = code;
    this.hint = hint;
    this.aborted = aborted;
  }
}

interface Waiting {
  readonly tell: (news: never) => void;
  readonly resolve: (result: never) => void;
  readonly reject: (error: unknown) => void;
}

/** A worker, and the calls that wait for it. */
export class WorkerClient {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #next = 1;

  constructor(script: string) {
    this.#worker = new Worker(script, { type: "module" });
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
      const waiting = this.#waiting.get(data.id);
      if (!waiting) return;
      if ("news" in data) return waiting.tell(data.news as never);
      this.#waiting.delete(data.id);
      if ("failure" in data) waiting.reject(new WorkerError(data.failure));
      else waiting.resolve(data.result as never);
    };
    this.#worker.onerror = ({ message }) => {
      this.#failAll(`the worker has ended: ${message ?? "its script cannot be loaded"}`);
    };
  }

  /** @throws WorkerError */
  call<N extends CallName>(
    name: N,
    asked: Calls[N]["asked"],
    { tell = () => {}, signal }: { tell?: (news: Calls[N]["news"]) => void; signal?: AbortSignal } = {},
  ): Promise<Calls[N]["result"]> {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { tell, resolve, reject });
      this.#worker.postMessage({ id, name, asked } satisfies ToWorker);
      signal?.addEventListener("abort", () => this.#worker.postMessage({ id, abort: true } satisfies ToWorker));
    });
  }

  /** Ends the worker and frees what it holds; calls that wait are rejected. */
  end(): void {
    this.#worker.terminate();
    this.#failAll("stopped", true);
  }

  #failAll(message: string, aborted = false): void {
    for (const { reject } of this.#waiting.values()) {
      reject(new WorkerError({ code: "", message, hint: "", aborted }));
    }
    this.#waiting.clear();
  }
}
