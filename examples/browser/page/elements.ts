/** Finding and making elements. */
import type { EngineError } from "../../../src/index.ts";

/** The element of index.html. @throws Error if it has none */
export function element<K extends keyof HTMLElementTagNameMap>(_kind: K, selector: string): HTMLElementTagNameMap[K] {
  const found = document.querySelector<HTMLElementTagNameMap[K]>(selector);
  if (!found) throw new Error(`index.html has no ${selector}`);
  return found;
}

/** A new element with text. */
export function make<K extends keyof HTMLElementTagNameMap>(
  kind: K,
  className: string,
  text = "",
): HTMLElementTagNameMap[K] {
  const made = document.createElement(kind);
  made.className = className;
  if (text !== "") made.textContent = text;
  return made;
}

/** A button that does something. */
export function makeButton(className: string, text: string, onclick: () => void): HTMLButtonElement {
  const button = make("button", className, text);
  button.type = "button";
  button.onclick = onclick;
  return button;
}

/** An error in people's words: without the hint in its message. */
export function saidOf(error: unknown): { readonly code: string; readonly message: string; readonly hint: string } {
  const { code = "", message = String(error), hint = "" } = Object(error) as Partial<EngineError>;
  return { code, message: message.split("\n    hint: ")[0]!, hint };
}

export async function fetched(url: string): Promise<Response> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the server answers ${response.status}`);
  return response;
}
