/** What the views share: the image, the model, and who is at work. Views hear of each change. */

import type { Loaded } from "../worker/protocol.ts";

export interface State {
  /** The model, once it is loaded. */
  readonly loaded: Loaded | undefined;
  /** The name of the checkpoint, if the page offers it. */
  readonly checkpoint: string | undefined;
  /** How its weights are loaded. */
  readonly dtype: string;
  readonly image: Blob | undefined;
  /** The name of the image, if it is an example. */
  readonly imageName: string | undefined;
  /** Suggested questions about the image. */
  readonly questions: readonly string[];
  /** Whether an answer is being written. */
  readonly writing: boolean;
}

type Listener = (state: State, before: State) => void;

let current: State = {
  ...{ loaded: undefined, checkpoint: undefined, dtype: "auto" },
  ...{ image: undefined, imageName: undefined, questions: [], writing: false },
};
const listeners: Listener[] = [];

export const state = (): State => current;

export function update(change: Partial<State>): void {
  const before = current;
  current = { ...before, ...change };
  for (const listener of listeners) listener(current, before);
}

/** Calls a listener now and after each change. */
export function follow(listener: Listener): void {
  listeners.push(listener);
  listener(current, current);
}
