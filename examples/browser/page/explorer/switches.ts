/** Switches that take parts out, and the colours of what that does. */
import { makeButton } from "../elements.ts";
import { nats } from "./exploration.ts";

/** A switch, on. @param name for screen readers and as a tip */
export function makeSwitch(name: string, onclick: () => void, className = "switch"): HTMLButtonElement {
  const button = makeButton(className, "", onclick);
  button.role = "switch";
  button.ariaChecked = "true";
  button.ariaLabel = name;
  button.title = name;
  return button;
}

/** Colours a switch by what its part alone does to the answer's log-probability; below 0 the answer rests on it. */
export function showEffect(button: HTMLButtonElement, effect: number | undefined, most: number): void {
  const name = button.title.split(":")[0]!;
  button.classList.toggle("measured", effect !== undefined);
  if (effect === undefined) {
    button.title = name;
    button.ariaLabel = name;
    return;
  }
  button.classList.toggle("against", effect > 0);
  button.style.setProperty("--share", String(Math.abs(effect) / most));
  button.title = `${name}: without it ${effect > 0 ? "+" : ""}${nats(effect)}`;
  button.ariaLabel = button.title;
}
