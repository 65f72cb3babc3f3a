/** What the views share: the image, the model, and who is at work. Views hear of each change. */

export interface State {
  /** Whether a model is loaded. */
  readonly ready: boolean;
  readonly image: Blob | undefined;
  /** Suggested questions about the image. */
  readonly questions: readonly string[];
  /** Whether an answer is being written. */
  readonly writing: boolean;
}

type Listener = (state: State, before: State) => void;

let current: State = { ready: false, image: undefined, questions: [], writing: false };
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
