/** The worker's end: it holds the device and the models, and answers the page's calls. */
import { InputError } from "../tensor/errors.ts";
import { failureOf } from "../tensor/failure.ts";
import { Library } from "./library.ts";
import type { Calls, Context, FromWorker, LibraryCalls, ToWorker } from "./messages.ts";
import type { Local } from "./remote_types.ts";

/** A function for each call of an application's own. Models and processors that the page names are the worker's. */
export type Handlers<C extends Calls> = {
  readonly [N in keyof C]: (asked: Local<C[N]["asked"]>, context: Context<C[N]["news"]>) => Promise<C[N]["result"]>;
};

/** The part of a worker's global scope that is used; a MessagePort has it too. */
export interface WorkerScope {
  onmessage: ((event: MessageEvent) => void) | null;
  postMessage(message: unknown): void;
}

type Handler = (asked: unknown, context: Context) => Promise<unknown>;

/**
 * Answers the calls of {@link connect}, each as soon as it comes. A worker's script that does no more than this:
 *
 *   import { answerCalls } from "instructblip-webgpu/worker";
 *   answerCalls();
 *
 * @param handlers of calls besides the library's
 * @param scope default: the worker's
 */
export function answerCalls<C extends Calls = Record<never, never>>(
  handlers: Handlers<C> = {} as Handlers<C>,
  scope: WorkerScope = globalThis as unknown as WorkerScope,
): void {
  const post = (message: FromWorker) => scope.postMessage(message);
  const library = new Library((error) => post({ lost: failureOf(error) }));
  const known: Readonly<Record<string, Handler>> = {
    ...(handlers as unknown as Record<string, Handler>),
    ...(library.handlers as unknown as Record<keyof LibraryCalls, Handler>),
  };
  const running = new Map<number, { readonly controller: AbortController; cancelled: boolean }>();
  scope.onmessage = async ({ data }) => {
    const message = data as ToWorker;
    const { id } = message;
    if (!("name" in message)) {
      const call = running.get(id);
      if (call && "cancel" in message) call.cancelled = true;
      else call?.controller.abort();
      return;
    }
    const call = { controller: new AbortController(), cancelled: false };
    running.set(id, call);
    const { signal } = call.controller;
    const context: Context = {
      signal,
      tell: (news) => post({ id, news }),
      get cancelled() {
        return call.cancelled;
      },
    };
    try {
      const handler = Object.hasOwn(known, message.name) ? known[message.name] : undefined;
      if (!handler) throw new InputError("BAD_INPUT", `the worker answers no call ${message.name}`);
      post({ id, result: await handler(library.resolve(message.asked), context) });
    } catch (error) {
      post({ id, failure: failureOf(error, signal) });
    } finally {
      running.delete(id);
    }
  };
}
