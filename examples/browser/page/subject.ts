/** The image that is asked about: an example, a file that is chosen, dropped or pasted, or one from the camera. */
import type { PageFacts } from "../serve.ts";
import { openCamera } from "./camera.ts";
import { element, fetched, makeButton } from "./elements.ts";
import { update } from "./state.ts";

const page = {
  file: element("input", "#file"),
  stack: element("div", "#stack"),
  image: element("img", "#image"),
  images: element("div", "#images"),
  message: element("p", "#image-message"),
  camera: element("button", "#open-camera"),
};

/** Selects an image. @param imageName of an example */
function choose(blob: Blob, questions: readonly string[], imageName?: string): void {
  page.message.textContent = "";
  URL.revokeObjectURL(page.image.src);
  page.image.src = URL.createObjectURL(blob);
  for (const button of page.images.querySelectorAll("button")) button.ariaPressed = "false";
  update({ image: blob, imageName, questions });
}

/** Why a file is not an image that can be shown, in people's words; undefined if it is one. */
async function problemOf(file: File): Promise<string | undefined> {
  if (file.size === 0) return `${file.name} is empty`;
  try {
    (await createImageBitmap(file)).close();
    return undefined;
  } catch {
    if (!file.type.startsWith("image/")) return `${file.name} is not an image`;
    return `${file.name} cannot be opened: it is broken, or of a kind that this browser does not know`;
  }
}

/** Takes the first image of files, or says why there is none. */
async function take(files: readonly File[], questions: readonly string[]): Promise<void> {
  const problems: string[] = [];
  for (const file of files) {
    const problem = await problemOf(file);
    if (problem === undefined) return choose(file, questions);
    problems.push(problem);
  }
  page.message.textContent = problems[0] ?? "There was no file in that; drop or paste an image itself";
}

/** The name of an example: its file's. */
const nameOf = (image: string) => image.replace(/^.*\/|\.\w+$/g, "");

/**
 * @param questions that suit any image
 * @param first the name of the example that is shown at first; default: the first
 */
export async function offerImages({ images }: PageFacts, questions: readonly string[], first?: string): Promise<void> {
  page.file.onchange = () => {
    const files = [...(page.file.files ?? [])];
    if (files.length > 0) void take(files, questions);
    page.file.value = ""; // so that the same file can be chosen again
  };
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length === 0) return; // a text, for the question
    event.preventDefault();
    void take(files, questions);
  });
  // On the whole page: an image dropped beside the frame would replace the page.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    page.stack.classList.add("over");
  });
  document.addEventListener("dragleave", () => page.stack.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    page.stack.classList.remove("over");
    void take([...(event.dataTransfer?.files ?? [])], questions);
  });
  page.camera.onclick = async () => {
    const taken = await openCamera();
    if (taken) choose(taken, questions);
  };
  const select = async (entry: PageFacts["images"][number], button: HTMLButtonElement) => {
    choose(await (await fetched(entry.image)).blob(), entry.questions, nameOf(entry.image));
    button.ariaPressed = "true";
  };
  for (const entry of images) {
    const button = makeButton("", "", () => {
      select(entry, button).catch((error: Error) => {
        page.message.textContent = error.message;
      });
    });
    button.ariaLabel = `example ${nameOf(entry.image)}`;
    const image = document.createElement("img");
    image.src = entry.image;
    image.alt = "";
    button.append(image);
    page.images.append(button);
  }
  const asked = images.findIndex(({ image }) => nameOf(image) === first);
  const shown = Math.max(0, asked);
  await select(images[shown]!, page.images.querySelectorAll("button")[shown]!);
  if (first !== undefined && asked < 0) {
    page.message.textContent = `The link is about the example ${first.slice(0, 40)}, which is not here.`;
  }
}
