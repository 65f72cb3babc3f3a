/** The two views: asking, and looking inside. Arrow keys change between them. */
import { element } from "./elements.ts";

const page = {
  tabs: element("div", "#tabs"),
  ask: element("button", "#tab-ask"),
  inside: element("button", "#tab-inside"),
};
const panels = { ask: element("section" as "div", "#conversation"), inside: element("section" as "div", "#inside") };

export type View = keyof typeof panels;

/** @param changed is called with the view that is shown, and with the question that it was opened with */
export function offerTabs(changed: (view: View, asked?: string) => void): { show(view: View, asked?: string): void } {
  const show = (view: View, asked?: string) => {
    for (const name of ["ask", "inside"] as const) {
      const isShown = name === view;
      page[name].ariaSelected = String(isShown);
      page[name].tabIndex = isShown ? 0 : -1;
      panels[name].hidden = !isShown;
    }
    document.body.classList.toggle("looks-inside", view === "inside");
    changed(view, asked);
  };
  page.ask.onclick = () => show("ask");
  page.inside.onclick = () => show("inside");
  page.tabs.onkeydown = ({ key }) => {
    if (key !== "ArrowLeft" && key !== "ArrowRight") return;
    const other = page.ask.ariaSelected === "true" ? "inside" : "ask";
    show(other);
    page[other].focus();
  };
  page.tabs.hidden = false;
  return { show };
}
