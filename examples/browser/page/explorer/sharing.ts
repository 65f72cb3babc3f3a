/** The button that copies a link to what is shown, and why there is none. */
import { copyText } from "../clipboard.ts";
import { element } from "../elements.ts";
import { follow, state } from "../state.ts";
import { fragmentOf, type LinkState } from "./link.ts";

const page = { button: element("button", "#copy-link"), note: element("p", "#link-note") };

/** What of a link the explorer knows. */
export type Shown = Omit<LinkState, "checkpoint" | "dtype" | "image">;

/** @param shown what is shown; undefined before there is an answer */
export function offerLink(shown: () => Shown | undefined): { changed(): void } {
  const linkOfPage = (): string | undefined => {
    const { checkpoint, dtype, imageName: image } = state();
    const now = shown();
    if (!now || checkpoint === undefined || image === undefined) return undefined;
    const url = new URL(location.href);
    // What chooses a model is in the link.
    for (const name of ["checkpoint", "dtype", "keep"]) url.searchParams.delete(name);
    url.hash = fragmentOf({ checkpoint, ...(dtype !== "auto" && { dtype }), image, ...now });
    return url.href;
  };
  const changed = () => {
    const { checkpoint, image, imageName } = state();
    const isOwnImage = image !== undefined && imageName === undefined;
    page.button.disabled = linkOfPage() === undefined;
    page.note.textContent = isOwnImage
      ? "No link holds an image of your own: choose an example for that."
      : checkpoint === undefined
        ? "No link holds a model of your own computer: choose one of the list for that."
        : "";
  };
  page.button.onclick = () => {
    const link = linkOfPage();
    if (link === undefined) return;
    history.replaceState(null, "", link); // so that it is there after a reload, too
    void copyText(link, page.button);
  };
  // A link that is opened in a page that is there already.
  addEventListener("hashchange", () => location.reload());
  follow(changed);
  return { changed };
}
