/** The part of `npm run browser:check` about asking: models to choose, images from everywhere, answers, and their buttons. */
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { DType } from "../../src/tensor/dtype.ts";
import { openCheckpoint } from "../../src/tensor/files/source.node.ts";
import { pytorchFile, type View } from "../../test/tensor/files/pytorch_file.ts";
import { checkAxe } from "./check_axe.ts";
import type { Expect, Shoot } from "./check_page.ts";
import type { Chromium } from "./chromium.ts";
import { EMBEDDED } from "./serve.ts";

const SHAPES = fileURLToPath(new URL("../shapes/", import.meta.url));

/** An entry of questions.json. */
export interface Example {
  readonly image: string;
  readonly questions: readonly string[];
  readonly answers: readonly string[];
}

export const text = (selector: string) => `document.querySelector(${JSON.stringify(selector)}).innerText`;
export const visible = (selector: string) =>
  `Boolean(document.querySelector(${JSON.stringify(selector)})?.checkVisibility())`;

interface Answered {
  readonly answer: string;
  readonly pieces: number;
  readonly timing: string;
}

/** Types a question and returns the page's answer, and the number of its updates. */
async function askPage(browser: Chromium, question: string): Promise<Answered> {
  return browser.evaluate(`(async () => {
    const talk = document.querySelector("#talk");
    const before = talk.children.length;
    document.querySelector("#question").value = ${JSON.stringify(question)};
    document.querySelector("#ask button").click();
    const entry = talk.children[before];
    const answer = entry.querySelector(".answer");
    let pieces = 0;
    let last = "";
    const observer = new MutationObserver(() => {
      if (answer.textContent !== last) pieces++;
      last = answer.textContent;
    });
    observer.observe(answer, { childList: true, characterData: true, subtree: true });
    const end = performance.now() + 60_000;
    while (answer.classList.contains("writing") && performance.now() < end) await new Promise((r) => setTimeout(r, 10));
    observer.disconnect();
    return { answer: answer.textContent.trim(), pieces, timing: entry.querySelector(".timing").textContent };
  })()`);
}

/** Without WebGPU the page shows an error. */
async function checkWithout(browser: Chromium, url: string, expect: Expect): Promise<void> {
  const source = 'Object.defineProperty(Navigator.prototype, "gpu", { get: () => undefined });';
  await browser.beforePage(source, async () => {
    await browser.send("Page.navigate", { url });
    await browser.until(visible("#failure"));
  });
  const said = await browser.evaluate<string>(text("#failure"));
  expect(
    /no WebGPU in this browser/.test(said) && /Chrome/.test(said),
    `without WebGPU the page says so, not: ${said}`,
  );
  expect(!(await browser.evaluate(visible("#status"))), "without WebGPU the page does not go on loading");
  console.log(`without WebGPU  “${said.split("\n")[0]}”`);
}

/** Errors are shown on the page. */
async function checkRefused(browser: Chromium, url: string, expect: Expect): Promise<void> {
  await browser.send("Page.navigate", { url: `${url}?checkpoint=0&dtype=int3` });
  await browser.until(visible("#failure"));
  const said = await browser.evaluate<string>(text("#failure"));
  expect(
    /^This did not work\s+dtype: unknown dtype "int3"/.test(said),
    `a wrong dtype is refused by name, not: ${said}`,
  );
  console.log(`?dtype=int3     “${said.split("\n").filter(Boolean)[1]}”`);
}

/** The embedded checkpoint with its weights as PyTorch's file. */
async function writeAsPyTorch(folder: string): Promise<void> {
  await cp(EMBEDDED, folder, { recursive: true, filter: (path) => !path.endsWith(".safetensors") });
  const checkpoint = await openCheckpoint(EMBEDDED);
  const [tensors, storages]: [Record<string, View>, Record<string, Uint8Array>] = [{}, {}];
  for (const { name, dtype, shape } of checkpoint.tensors.values()) {
    tensors[name] = { dtype: dtype as DType, shape, storage: name };
    storages[name] = await checkpoint.read(name);
  }
  await checkpoint.close();
  await writeFile(join(folder, "pytorch_model.bin"), pytorchFile(tensors, storages));
}

/** Models with their sizes, of which nothing is loaded before one is chosen; a folder that is none is refused. */
async function checkChoice(browser: Chromium, url: string, expect: Expect, shoot: Shoot): Promise<void> {
  await browser.send("Page.navigate", { url });
  await browser.until(visible("#checkpoints"));
  const offered = await browser.evaluate<string>(text("#offered"));
  expect(/^The embedded checkpoint\s+6\.7 MB\s+3\.3 million/.test(offered), `the list gives sizes, not: ${offered}`);
  const loaded = await browser.evaluate<string[]>(
    'performance.getEntriesByType("resource").map(({ name }) => name).filter((name) => /checkpoint/.test(name))',
  );
  expect(loaded.length === 0, `nothing is loaded before a model is chosen, not: ${loaded.join(", ")}`);
  await checkAxe(browser, "models to choose", expect);
  await shoot("choose");
  await shoot("choose-390", 390, 844, "dark");
  await browser.setFiles("#folder", [join(SHAPES, "images")]);
  await browser.until(`${text("#folder-message")} !== ""`);
  const said = await browser.evaluate<string>(text("#folder-message"));
  expect(/^images is not a checkpoint: there is no config\.json/.test(said), `a wrong folder is refused, not: ${said}`);
  const folder = await mkdtemp(join(tmpdir(), "instructblip-bin-"));
  let answer = "";
  try {
    await writeAsPyTorch(folder);
    await browser.setFiles("#folder", [folder]);
    await browser.until('document.querySelector("#ask button").disabled === false');
    ({ answer } = await askPage(browser, "What is in the image?"));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  expect(answer !== "", "a checkpoint of a folder, with its weights in a .bin file, answers");
  console.log(`models          ${offered.replace(/\s+/g, " ")}; “${said}”; a folder answers “${answer}”`);
}

/** The page loads, with progress messages. */
export async function openPage(browser: Chromium, url: string, expect: Expect): Promise<void> {
  const source = `addEventListener("DOMContentLoaded", () => {
    window.said = [];
    const status = document.querySelector("#status p");
    new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true });
  })`;
  await browser.beforePage(source, async () => {
    await browser.send("Page.navigate", { url });
    await browser.until(visible("#checkpoints"));
  });
  await browser.press("Enter"); // the first of the list has the focus
  await browser.until(`${visible("#failure")} || document.querySelector("#ask button")?.disabled === false`);
  const failed = await browser.evaluate<string | false>(`${visible("#failure")} && ${text("#failure")}`);
  if (failed) throw new Error(`the page could not start: ${failed}`);
  const said = await browser.evaluate<string[]>("said");
  for (const step of [
    /^Loading the processor$/,
    /^Loading the weights: \d\.\d of 6\.7 MB$/,
    /^Compiling the kernels$/,
  ]) {
    expect(
      said.some((line) => step.test(line)),
      `while loading the page says ${step}, not: ${said.join("; ")}`,
    );
  }
  console.log(`page            ${(await browser.evaluate<string>(text("#about"))).split("\n")[0]}`);
}

async function checkAnswers(browser: Chromium, examples: readonly Example[], expect: Expect): Promise<void> {
  let right = 0;
  let streamed = 0;
  for (const [i, { image, questions, answers }] of examples.entries()) {
    const button = `document.querySelectorAll("#images button")[${i}]`;
    await browser.evaluate(`${button}.ariaPressed = "false"; ${button}.click()`);
    await browser.until(`${button}.ariaPressed === "true"`);
    for (const [j, question] of questions.entries()) {
      const { answer, pieces, timing } = await askPage(browser, question);
      if (i === 0) console.log(`  ${question} ${answer}  (${timing})`);
      expect(answer === answers[j], `${image}: ${question} ${answer}, where PyTorch says ${answers[j]}`);
      const long = answer.split(" ").length >= 5;
      expect(long || !/tokens\/s/.test(timing), `${answer}: a short answer has no rate, not ${timing}`);
      right += Number(answer === answers[j]);
      streamed = Math.max(streamed, pieces);
    }
  }
  expect(streamed > 5, "a long answer comes in pieces");
  const all = examples.reduce((sum, { questions }) => sum + questions.length, 0);
  console.log(`answers         ${right} of ${all} are PyTorch's`);
}

/** Files that are no images are refused at once, in people's words, whether chosen or dropped. */
async function checkFiles(browser: Chromium, expect: Expect): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "instructblip-files-"));
  try {
    const [notes, broken, empty] = ["notes.txt", "broken.png", "empty.png"].map((name) => join(folder, name));
    await writeFile(notes, "not an image");
    await writeFile(broken, Buffer.from("89504e470d0a1a0a00", "hex"));
    await writeFile(empty, "");
    const message = text("#image-message");
    const before = await browser.evaluate<string>('document.querySelector("#image").src');
    const wanted: [string, RegExp][] = [
      [notes, /^notes\.txt is not an image$/],
      [broken, /^broken\.png cannot be opened: it is broken/],
      [empty, /^empty\.png is empty$/],
    ];
    for (const [file, expected] of wanted) {
      await browser.evaluate('document.querySelector("#image-message").textContent = ""');
      await browser.setFiles("#file", [file]);
      await browser.until(`${message} !== ""`);
      const said = await browser.evaluate<string>(message);
      expect(expected.test(said), `a file that is no image is refused by name, not: ${said}`);
    }
    await browser.evaluate('document.querySelector("#image-message").textContent = ""');
    await browser.drop("#conversation", [notes]);
    await browser.until(`${message} !== ""`);
    const said = await browser.evaluate<string>(message);
    expect(said === "notes.txt is not an image", `a dropped file is refused by name, not: ${said}`);
    const after = await browser.evaluate<string>('document.querySelector("#image").src');
    expect(before === after, "a refused file leaves the image as it is");
    console.log(`files           “${said}”, and two that are broken`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A local image, and an aborted answer. */
async function checkOwnImage(browser: Chromium, examples: readonly Example[], expect: Expect): Promise<void> {
  const { image, questions, answers } = examples[1];
  await browser.drop("#subject", [join(SHAPES, image)]);
  await browser.until('document.querySelectorAll("#images button[aria-pressed=true]").length === 0');
  const { answer } = await askPage(browser, questions[0]);
  expect(answer === answers[0], `a dropped file: ${questions[0]} ${answer}, not ${answers[0]}`);
  const refused = await askPage(browser, "what is <image>?");
  expect(/placeholder|stands for the image/.test(refused.answer), `a refused question says why: ${refused.answer}`);
  await browser.evaluate(`(async () => {
    document.querySelector("#question").value = "Describe the image.";
    const button = document.querySelector("#ask button");
    button.click();
    await new Promise((r) => setTimeout(r, 1));
    button.click();
  })()`);
  await browser.until('document.querySelector("#talk li:last-child .timing").textContent !== ""');
  const stopped = await browser.evaluate<string>(text("#talk li:last-child .timing"));
  expect(stopped === "stopped", `an answer that is stopped says so, not: ${stopped}`);
  console.log("own image       answered; a refused question and a stopped answer say so");
}

/** Answers are copied, asked again and cleared; what scrolls is reached by Tab. */
async function checkButtons(browser: Chromium, url: string, expect: Expect): Promise<void> {
  for (const name of ["clipboard-read", "clipboard-write"]) {
    await browser.send("Browser.setPermission", { origin: url, permission: { name }, setting: "granted" });
  }
  const first = await browser.evaluate<string>(text("#talk li .answer"));
  const question = await browser.evaluate<string>(text("#talk li .question"));
  await browser.send("Page.bringToFront");
  await browser.click("#talk li .after button");
  await browser.until(`${text("#talk li .after button")} === "Copied"`);
  const copied = await browser.evaluate<string>("navigator.clipboard.readText()");
  expect(copied === first, `Copy puts the answer on the clipboard, not: ${copied}`);
  const count = await browser.evaluate<number>('document.querySelectorAll("#talk li").length');
  await browser.click("#talk li .after button:nth-of-type(2)");
  await browser.until(`document.querySelectorAll("#talk li").length === ${count + 1}`);
  await browser.until('document.querySelector("#talk li:last-child .timing").textContent !== ""');
  const [again, said] = await browser.evaluate<[string, string]>(
    `[${text("#talk li:last-child .question")}, ${text("#talk li:last-child .answer")}]`,
  );
  expect(again === question && said === first, `asked again, ${question} is answered ${first}, not ${again} ${said}`);
  await browser.evaluate("document.activeElement.blur()");
  let reached = false;
  for (let i = 0; i < 80 && !reached; i++) {
    await browser.press("Tab");
    reached = await browser.evaluate('document.activeElement.id === "talk"');
  }
  expect(reached, "Tab leads to the answers");
  await browser.click("#clear");
  const left = await browser.evaluate<number>('document.querySelectorAll("#talk li").length');
  expect(left === 0, "Clear takes the answers away");
  console.log("answers         are copied, asked again and cleared, and reached by Tab");
}

/** The camera is asked for on request alone; a refused one says so. */
async function checkCamera(browser: Chromium, expect: Expect, shoot: Shoot): Promise<void> {
  // As the browser refuses it where the user says no; a headless one cannot ask.
  await browser.evaluate(`navigator.mediaDevices.getUserMedia = async () => {
    throw new DOMException("Permission denied", "NotAllowedError");
  }`);
  await browser.click("#open-camera");
  await browser.until(`${text("#camera-message")} !== ""`);
  const said = await browser.evaluate<string>(text("#camera-message"));
  expect(/^The camera was refused\./.test(said), `a refused camera says so, not: ${said}`);
  await checkAxe(browser, "the camera", expect);
  await shoot("camera");
  await browser.press("Escape");
  await browser.until('!document.querySelector("#camera").open');
  await browser.evaluate("delete navigator.mediaDevices.getUserMedia");
  const before = await browser.evaluate<string>('document.querySelector("#image").src');
  await browser.click("#open-camera");
  await browser.until('document.querySelector("#shutter").disabled === false');
  await browser.press("Enter");
  await browser.until(`document.querySelector("#image").src !== ${JSON.stringify(before)}`);
  await browser.until('document.querySelector("#image").naturalWidth > 0');
  const open = await browser.evaluate<boolean>(
    'document.querySelector("#camera").open || document.querySelector("#viewfinder").srcObject !== null',
  );
  expect(!open, "the camera is let go");
  const { answer } = await askPage(browser, "What is in the image?");
  expect(answer !== "", "an image of the camera is answered about");
  console.log(`camera          “${said}”; allowed, its image is answered: “${answer}”`);
}

/** On narrow screens the page fits, and it alone scrolls. */
async function checkNarrow(browser: Chromium, expect: Expect): Promise<void> {
  await browser.send("Emulation.setDeviceMetricsOverride", {
    ...{ width: 360, height: 700, deviceScaleFactor: 1, mobile: true },
  });
  const wide = await browser.evaluate<number>("document.documentElement.scrollWidth");
  expect(wide <= 360, `the page fits on a telephone of 360 pixels, not ${wide}`);
  const scrollers = await browser.evaluate<string[]>(`[...document.querySelectorAll("main *")].filter((one) =>
    /auto|scroll/.test(getComputedStyle(one).overflowY) && one.scrollHeight > one.clientHeight).map(({ id }) => id)`);
  expect(scrollers.length === 0, `nothing scrolls inside the page on a telephone, not ${scrollers.join(", ")}`);
  await browser.send("Emulation.clearDeviceMetricsOverride");
}

/** The button checks the adapter, and stops when it is pressed again. The full check is tested with the command line. */
async function checkDoctor(browser: Chromium, url: string, expect: Expect): Promise<void> {
  await browser.send("Page.navigate", { url: `${url}?quick` });
  await browser.until('document.querySelector("#doctor")?.disabled === false');
  const press = 'document.querySelector("#doctor").click()';
  const report = 'document.querySelector("#report").textContent';
  await browser.evaluate(press);
  await browser.until(`${report}.includes("argmax")`);
  await browser.evaluate(press);
  await browser.until('document.querySelector("#checking").textContent === "stopped"');
  const said = await browser.evaluate<string>(report);
  expect(/^ok {5}activation \* +\d+ right/.test(said), `the check of the adapter says what is right, not: ${said}`);
  expect(
    !/WRONG/.test(said) && /^verdict +the run did not end/m.test(said),
    `nothing is wrong, and a stopped check says that it did not end: ${said}`,
  );
  console.log("doctor          checks, and stops");
}

export async function checkAsk(
  browser: Chromium,
  url: string,
  examples: readonly Example[],
  expect: Expect,
  shoot: Shoot,
): Promise<void> {
  await checkWithout(browser, url, expect);
  await shoot("without");
  await checkRefused(browser, url, expect);
  await checkChoice(browser, url, expect, shoot);
  await openPage(browser, url, expect);
  await checkAnswers(browser, examples, expect);
  await checkAxe(browser, "answers", expect);
  for (const width of [1400, 800, 390]) {
    for (const scheme of ["light", "dark"] as const) await shoot(`page-${width}-${scheme}`, width, 1100, scheme);
  }
  await checkNarrow(browser, expect);
  await checkFiles(browser, expect);
  await shoot("refused");
  await checkOwnImage(browser, examples, expect);
  await shoot("own");
  await checkButtons(browser, url, expect);
  await checkCamera(browser, expect, shoot);
  await checkDoctor(browser, url, expect);
}
