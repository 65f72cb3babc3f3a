/** The work of `npm run browser:check`. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { checkImages } from "./check_images.ts";
import { checkLens } from "./check_lens.ts";
import { checkSweep } from "./check_sweep.ts";
import { Chromium, findChromium } from "./chromium.ts";
import { EMBEDDED, servePage } from "./serve.ts";

const IMAGES = fileURLToPath(new URL("../shapes/images/", import.meta.url));

interface Example {
  readonly image: string;
  readonly questions: readonly string[];
  readonly answers: readonly string[];
}

const problems: string[] = [];
function expect(holds: boolean, what: string): void {
  if (holds) return;
  problems.push(what);
  console.log(`  FAILED  ${what}`);
}

/** Types a question and returns the page's answer, and the number of its updates. */
async function askPage(
  browser: Chromium,
  question: string,
): Promise<{ answer: string; pieces: number; timing: string }> {
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

const text = (selector: string) => `document.querySelector(${JSON.stringify(selector)}).innerText`;
const visible = (selector: string) => `document.querySelector(${JSON.stringify(selector)})?.checkVisibility()`;

/** Without WebGPU the page shows an error. */
async function checkWithout(browser: Chromium, url: string): Promise<void> {
  const source = 'Object.defineProperty(Navigator.prototype, "gpu", { get: () => undefined });';
  const { identifier } = await browser.send<{ identifier: string }>("Page.addScriptToEvaluateOnNewDocument", {
    source,
  });
  await browser.send("Page.navigate", { url });
  await browser.until(visible("#failure"));
  const said = await browser.evaluate<string>(text("#failure"));
  expect(
    /no WebGPU in this browser/.test(said) && /Chrome/.test(said),
    `without WebGPU the page says so, not: ${said}`,
  );
  expect(!(await browser.evaluate(visible("#status"))), "without WebGPU the page does not go on loading");
  await browser.send("Page.removeScriptToEvaluateOnNewDocument", { identifier });
  console.log(`without WebGPU  “${said.split("\n")[0]}”`);
}

/** Errors are shown on the page. */
async function checkRefused(browser: Chromium, url: string): Promise<void> {
  await browser.send("Page.navigate", { url: `${url}?dtype=int3` });
  await browser.until(visible("#failure"));
  const said = await browser.evaluate<string>(text("#failure"));
  expect(
    /^This did not work\s+dtype: unknown dtype "int3"/.test(said),
    `a wrong dtype is refused by name, not: ${said}`,
  );
  console.log(`?dtype=int3     “${said.split("\n").filter(Boolean)[1]}”`);
}

/** The page loads, with progress messages. */
async function checkStart(browser: Chromium, url: string): Promise<void> {
  const source = `addEventListener("DOMContentLoaded", () => {
    window.said = [];
    const status = document.querySelector("#status p");
    new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true });
  })`;
  const { identifier } = await browser.send<{ identifier: string }>("Page.addScriptToEvaluateOnNewDocument", {
    source,
  });
  await browser.send("Page.navigate", { url });
  await browser.send("Page.removeScriptToEvaluateOnNewDocument", { identifier });
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

async function checkAnswers(browser: Chromium, examples: readonly Example[]): Promise<void> {
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
      right += Number(answer === answers[j]);
      streamed = Math.max(streamed, pieces);
    }
  }
  expect(streamed > 5, "a long answer comes in pieces");
  const all = examples.reduce((sum, { questions }) => sum + questions.length, 0);
  console.log(`answers         ${right} of ${all} are PyTorch's`);
}

/** A local image, and an aborted answer. */
async function checkOwnImage(browser: Chromium, examples: readonly Example[]): Promise<void> {
  const { image, questions, answers } = examples[1];
  const { root } = await browser.send<{ root: { nodeId: number } }>("DOM.getDocument");
  const { nodeId } = await browser.send<{ nodeId: number }>("DOM.querySelector", {
    nodeId: root.nodeId,
    selector: "#file",
  });
  await browser.send("DOM.setFileInputFiles", { nodeId, files: [join(IMAGES, "..", image)] });
  await browser.until('document.querySelectorAll("#images button[aria-pressed=true]").length === 0');
  const { answer } = await askPage(browser, questions[0]);
  expect(answer === answers[0], `a chosen file: ${questions[0]} ${answer}, not ${answers[0]}`);
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
  console.log("own image     answered; a refused question and a stopped answer say so");
}

/** The button checks the adapter, and stops when it is pressed again. The full check is tested with the command line. */
async function checkDoctor(browser: Chromium, url: string): Promise<void> {
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

/** Checks the page and prints what it finds; the exit code. */
export async function run(screenshots: string | undefined): Promise<number> {
  const program = await findChromium();
  if (!program) {
    console.log("skipped: no Chromium was found on the PATH; CHROME_PATH=FILE names one");
    return 0;
  }
  const examples = JSON.parse(await readFile(join(IMAGES, "questions.json"), "utf8")) as Example[];
  const server = await servePage({ model: EMBEDDED, port: 0 });
  let browser: Chromium | undefined;
  try {
    browser = await Chromium.start(program);
    const { product } = await browser.send<{ product: string }>("Browser.getVersion");
    console.log(`browser         ${product}`);
    const shoot = async (name: string, width = 1100, height = 720, scheme: "light" | "dark" = "light") => {
      if (screenshots === undefined) return;
      await mkdir(screenshots, { recursive: true });
      await writeFile(join(screenshots, `${name}.png`), await browser!.screenshot(width, height, scheme));
    };
    await checkWithout(browser, server.url);
    await shoot("without");
    await checkRefused(browser, server.url);
    await checkStart(browser, server.url);
    await checkAnswers(browser, examples);
    await shoot("page");
    await shoot("dark", 1100, 720, "dark");
    await shoot("narrow", 400, 1100);
    await browser.send("Emulation.setDeviceMetricsOverride", {
      width: 360,
      height: 700,
      deviceScaleFactor: 1,
      mobile: true,
    });
    const wide = await browser.evaluate<number>("document.documentElement.scrollWidth");
    expect(wide <= 360, `the page fits on a telephone of 360 pixels, not ${wide}`);
    await browser.send("Emulation.clearDeviceMetricsOverride");
    await checkOwnImage(browser, examples);
    await shoot("own");
    await checkDoctor(browser, server.url);
    await checkLens(browser, expect, shoot);
    await checkSweep(browser, expect, shoot);
    // Optional files of a checkpoint are requested, and Chromium logs missing ones.
    const complaints = browser.complaints.filter((text) => !/\b404\b.*\/checkpoint\//.test(text));
    expect(complaints.length === 0, `the browser's console is empty, not: ${complaints.join("; ")}`);
    await checkImages(browser, expect); // last: its failed requests are logged
  } finally {
    await browser?.close();
    await server.close();
  }
  console.log(problems.length === 0 ? "all as it should be" : `${problems.length} failed`);
  return problems.length === 0 ? 0 : 1;
}
