/** The arguments of a call of a model's method, and the streamer among them, which stays in the page. */
import type { Streamer } from "../instructblip/generation/streamer.ts";
import type { Posted } from "./connection.ts";
import type { ListenerNews, RunAsked } from "./messages.ts";
import { isPlain, remoteOf, type Split, split, withRemotes } from "./posted.ts";
import { TextIteratorStreamer } from "./text_streamer.ts";

type AnyStreamer = Streamer | TextIteratorStreamer;

interface SplitCall extends Omit<Split, "given"> {
  readonly given: readonly unknown[];
  readonly stream: RunAsked["stream"];
  readonly streamer: AnyStreamer | undefined;
}

/**
 * Takes the arguments of a call apart: inputs and options in one object or in several; of a pipeline, `process`, those of generate()
 * are in generate_kwargs.
 *
 * @throws InputError WORKER_CLONE
 */
export function splitAll(name: string, all: readonly unknown[]): SplitCall {
  const parts: Split[] = [];
  const streamers: AnyStreamer[] = [];
  const taken = ({ streamer, ...options }: Readonly<Record<string, unknown>>) => {
    if (streamer) streamers.push(streamer as AnyStreamer);
    return () => {
      const part = split(name, options);
      parts.push(part);
      return part.given;
    };
  };
  const givens = all.map((one) => {
    if (!isPlain(one)) return () => withRemotes(one);
    const { generate_kwargs, ...options } = one;
    if (name !== "process" || !isPlain(generate_kwargs)) return taken(one);
    const [own, kwargs] = [taken(options), taken(generate_kwargs)];
    return () => ({ ...own(), generate_kwargs: kwargs() });
  });
  const streamer = streamers.at(-1);
  let given: readonly unknown[];
  try {
    given = givens.map((split) => split());
  } catch (error) {
    streamer?.end(error); // whoever reads it waits
    throw error;
  }
  return {
    given,
    listeners: parts.flatMap(({ listeners }) => listeners),
    tell: (news) => parts.find(({ listeners }) => listeners.includes(news[0]))?.tell(news),
    signal: parts.findLast(({ signal }) => signal)?.signal,
    stream: streamOf(streamer),
    streamer,
  };
}

function streamOf(streamer: AnyStreamer | undefined): RunAsked["stream"] {
  if (!(streamer instanceof TextIteratorStreamer)) return streamer ? "ids" : undefined;
  return { tokenizer: remoteOf(streamer.tokenizer)!, options: streamer.options };
}

/** Posts a call, gives the streamer what is told on the way, and ends it. @param tell calls the other listeners */
export async function followed(
  streamer: AnyStreamer,
  ask: (hear: (news: ListenerNews) => void) => Posted<unknown>,
  tell: (news: ListenerNews) => void,
): Promise<unknown> {
  let call: Posted<unknown> | undefined;
  const hear = (news: ListenerNews) => {
    const [kind, value] = news as [string, never];
    if (kind === "text") (streamer as TextIteratorStreamer).text(value);
    else if (kind === "put") (streamer as Streamer).put(value);
    else if (kind === "best") (streamer as Streamer).best?.(value);
    else tell(news);
    if (streamer.cancelled) call?.cancel();
  };
  try {
    call = ask(hear);
    const answer = await call.answer;
    streamer.end();
    return answer;
  } catch (error) {
    streamer.end(error);
    throw error;
  }
}
