/**
 * The part of `npm run browser:check` about looking inside: tokens, queries and heads by pointer, drag and keys; answers with
 * parts taken out must be those of `generate` with the same interventions; the page stays free meanwhile.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  AutoModelForImageTextToText,
  AutoProcessor,
  attribute,
  type InterventionData,
  type ModelInputs,
} from "../../src/index.node.ts";
import { type Example, text, visible } from "./check_ask.ts";
import { checkAxe } from "./check_axe.ts";
import type { Expect, Shoot } from "./check_page.ts";
import type { Chromium } from "./chromium.ts";
import { EMBEDDED } from "./serve.ts";

const SHAPES = fileURLToPath(new URL("../shapes/", import.meta.url));

/** A short answer, and a long one. */
const SHORT = "What color is the square?";
const LONG = "What is in the image?";

/** Longest task of the page's thread, of the processor's time, in ms: a frame and then some. */
const LONGEST_MS = 50;

/** Node's model, asked one question. */
interface Twin {
  answer(interventions: readonly InterventionData[]): Promise<string>;
  /** The patch on which the answer's first token rests most. */
  peak(): Promise<number>;
  close(): void;
}

/** The page has answered, and shows what is inside. */
const settled = `${visible("#found")} && !document.querySelector("#found").ariaBusy`;
const tokens = `[...document.querySelectorAll("#tokens .token:not(.end) > span:first-child")].map((one) => one.innerText)`;
const caption = text("#caption");
/** The numbers of the map that is drawn. */
const drawn = `(() => {
  const canvas = document.querySelector("#overlay");
  return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.join();
})()`;

/** Words as the answer's text has them. */
const joined = (list: readonly string[]) => list.join(" ").replaceAll(" ,", ",");

async function twinOf(image: string, question: string): Promise<Twin> {
  const processor = await AutoProcessor.from_pretrained(EMBEDDED);
  const model = await AutoModelForImageTextToText.from_pretrained(EMBEDDED);
  const bytes = new Uint8Array(await readFile(join(SHAPES, image)));
  const inputs = (await processor({ images: [bytes], text: [question] })) as ModelInputs;
  return {
    answer: async (interventions) => {
      const [ids] = await model.generate({ ...inputs, max_new_tokens: 64, interventions, return_full_text: false });
      return processor.tokenizer.decode(ids!, { skip_special_tokens: true }).trim();
    },
    peak: async () => {
      const { image: drops } = await attribute(model, inputs, { methods: ["image"] });
      const [patches] = drops!.drops;
      return patches!.indexOf(Math.max(...patches!));
    },
    close: () => model.dispose(),
  };
}

async function ask(browser: Chromium, question: string): Promise<void> {
  await browser.evaluate(`document.querySelector("#look-question").value = ${JSON.stringify(question)}`);
  await browser.click("#look button");
  await browser.until(settled);
}

/** Tokens follow the pointer and the arrow keys, and the map with them. */
async function checkTokens(browser: Chromium, expect: Expect): Promise<void> {
  const chosen = text("#chosen");
  await browser.point("#tokens .token:nth-child(2)");
  await browser.until(`${chosen}.includes("yellow")`);
  const [yellow, first] = await browser.evaluate<[string, string]>(`[${caption}, ${drawn}]`);
  expect(/“yellow”/.test(yellow), `the caption names the token under the pointer, not: ${yellow}`);
  await browser.evaluate('document.querySelector("#tokens .token:nth-child(2)").focus()');
  await browser.press("ArrowRight");
  const [triangle, second] = await browser.evaluate<[string, string]>(`[${chosen}, ${drawn}]`);
  expect(/^“triangle” was chosen with >?\d/.test(triangle), `an arrow key leads to the next token, not: ${triangle}`);
  expect(first !== second, "another token has another map");
  const bars = await browser.evaluate<string>(text("#instead"));
  expect(/^triangle\s+>?[\d.]+ %/.test(bars), `the chosen token is the most probable: ${bars}`);
}

/** A query's map under the pointer and in focus; layers, heads, words of layers. */
async function checkQueries(browser: Chromium, expect: Expect): Promise<void> {
  const query = (q: number) => `#queries li:nth-child(${q + 1}) .query`;
  await browser.point(query(3));
  await browser.until(`/^Where query 3 looked/.test(${caption})`);
  const mean = await browser.evaluate<string>(drawn);
  const choose = (selector: string, value: string) =>
    browser.evaluate(
      `{ const one = document.querySelector("${selector}"); one.value = "${value}"; one.dispatchEvent(new Event("change")); }`,
    );
  await browser.click(query(3));
  await choose("#map-layer", "1");
  await choose("#map-head", "2");
  const one = await browser.evaluate<string>(drawn);
  expect(mean !== one, "one layer and head have another map than the mean");
  await choose("#map-layer", "");
  await choose("#map-head", "");
  await browser.point("#look-question");
  const kept = await browser.evaluate<string>(caption);
  expect(/^Where query 3 looked/.test(kept), `a query that was pressed stays, not: ${kept}`);
  await browser.click(query(3));
  await browser.point("#look-question");
  await browser.evaluate(`document.querySelector("${query(5)}").focus()`);
  await browser.until(`/^Where query 5 looked/.test(${caption})`);
  const surest = await browser.evaluate<string>(text(`${query(0)} .words`));
  await choose("#words-layer", "1");
  const layer = await browser.evaluate<string>(text(`${query(0)} .words`));
  expect(surest !== layer && layer !== "", `the words of a layer are others than the surest: ${layer}`);
  await choose("#words-layer", "");
  await browser.point("#stack");
  const patch = await browser.evaluate<string>(caption);
  expect(
    /^Patch in row [45], column [45]: [\d.<]+ %$/.test(patch),
    `the patch under the pointer is named, not: ${patch}`,
  );
}

/** Takes parts out by switch, by drag and by key, and holds each answer to Node's. */
async function checkSwitches(browser: Chromium, { answer }: Twin, expect: Expect, shoot: Shoot): Promise<number> {
  const wholeText = await answer([]);
  const whole = joined(await browser.evaluate<string[]>(tokens));
  expect(whole === wholeText, `the whole model says ${wholeText}, not ${whole}`);
  let changed = 0;
  const hold = async (what: string, interventions: readonly InterventionData[]) => {
    await browser.until(settled);
    const wanted = await answer(interventions);
    const said = joined(await browser.evaluate<string[]>(tokens));
    expect(said === wanted, `${what}: the page says ${said}, generate ${wanted}`);
    const marked = await browser.evaluate<number>('document.querySelectorAll("#tokens .changed").length');
    const note = await browser.evaluate<string>(text("#whole"));
    const isChanged = wanted !== wholeText;
    expect(
      isChanged ? note.includes(wholeText) : marked === 0 && /stays the same/.test(note),
      `${what}: what has changed is marked, ${marked} tokens; ${note}`,
    );
    changed += Number(isChanged);
    const copied = await browser.evaluate<string>(`(async () => {
      let copied;
      navigator.clipboard.writeText = async (text) => { copied = text; };
      document.querySelector("#copy-interventions").click();
      delete navigator.clipboard.writeText;
      return copied;
    })()`);
    expect(
      copied === JSON.stringify(interventions, null, 2),
      `${what}: copied are the interventions, not ${copied.replace(/\s+/g, " ")}`,
    );
  };
  const query = { module: "language_projection", at: "output", op: "zero" } as const;
  await browser.click("#queries li:nth-child(4) .switch");
  await hold("query 3 out", [{ ...query, index: { token: [3] } }]);
  await shoot("inside-out", 1400, 1250);
  await browser.evaluate('document.querySelector("#queries li:nth-child(1) .switch").focus()');
  await browser.press(" ");
  await hold("queries 0 and 3 out", [{ ...query, index: { token: [0, 3] } }]);
  await browser.click("#restore");
  await browser.until(`${settled} && document.querySelector("#whole").hidden`);
  const again = joined(await browser.evaluate<string[]>(tokens));
  expect(again === wholeText, `with everything back in the answer is the whole model's, not ${again}`);
  // The last grid's second row: language model, layer 1.
  const head = (h: number) => `.grid:last-child .line:nth-child(2) .head:nth-child(${h + 2})`;
  await browser.drag([head(0), head(1), head(2)]);
  const heads = { module: "language_model.model.layers.1.self_attn", at: "heads", op: "zero" } as const;
  await hold("three heads out", [{ ...heads, index: { head: [0, 1, 2] } }]);
  await browser.evaluate(`document.querySelector("${head(2)}").focus()`);
  await browser.press("ArrowRight");
  await browser.press("Enter");
  await hold("four heads out", [{ ...heads, index: { head: [0, 1, 2, 3] } }]);
  await browser.click(".grid:last-child .line:nth-child(2) .layer");
  await browser.until(`${settled} && document.querySelector("#whole").hidden`);
  const back = joined(await browser.evaluate<string[]>(tokens));
  expect(back === wholeText, `a layer's number puts all of its heads back, not ${back}`);
  return changed;
}

/** The link that the button copies. */
async function copiedLink(browser: Chromium): Promise<string> {
  return browser.evaluate<string>(`(async () => {
    let copied;
    navigator.clipboard.writeText = async (text) => { copied = text; };
    document.querySelector("#copy-link").click();
    delete navigator.clipboard.writeText;
    return copied;
  })()`);
}

/** A copied link restores everything in a new page; one that is broken, or of what is not here, says so. */
async function checkLink(browser: Chromium, url: string, expect: Expect, shoot: Shoot): Promise<void> {
  await browser.click("#queries li:nth-child(4) .switch");
  await browser.until(settled);
  await browser.drag([".grid:last-child .line:nth-child(2) .head:nth-child(3)"]);
  await browser.until(settled);
  const set = (selector: string, value: string) =>
    `{ const one = document.querySelector("${selector}"); one.value = "${value}"; one.dispatchEvent(new Event("change")); }`;
  await browser.evaluate(set("#map-layer", "1") + set("#map-head", "2") + set("#words-layer", "1"));
  await browser.click("#queries li:nth-child(6) .query");
  await browser.evaluate('document.querySelector("#tokens .token:nth-child(3)").focus()');
  await browser.evaluate("document.activeElement.blur()");
  await browser.point("#look-question");
  const seen = `[${tokens}.join(""), ${caption}, ${drawn}, ${text("#out")}, ${text("#chosen")}, ${text("#queries")}]`;
  const before = await browser.evaluate<string[]>(seen);
  const link = await copiedLink(browser);
  const { hash, search } = new URL(link);
  const asked = Object.fromEntries(new URLSearchParams(hash.slice(1)));
  expect(
    search === "" && asked.token === "2" && asked.query === "5" && asked.image === "a",
    `the link is in the fragment, with token, query and image, not ${link}`,
  );
  await browser.send("Page.navigate", { url: "about:blank" });
  await browser.send("Page.navigate", { url: link });
  await browser.until(`${settled} && ${text("#out")} === "2 parts are out."`);
  await browser.point("#look-question");
  const after = await browser.evaluate<string[]>(seen);
  for (const [i, name] of ["answer", "caption", "map", "parts out", "token", "queries"].entries()) {
    expect(before[i] === after[i], `a link restores the ${name}: ${before[i]}, not ${after[i]}`);
  }
  const again = await copiedLink(browser);
  expect(again === link, `a restored page has the same link, not ${again} for ${link}`);
  await shoot("inside-link", 1400, 1250);
  for (const [fragment, where, wanted] of [
    ["#checkpoint=c&image=a", "#folder-message", /^This link is not whole/],
    ["#checkpoint=LLaVA&image=a&question=q", "#folder-message", /^The link is about LLaVA, which is not offered here/],
    [
      hash.replace("image=a", "image=zebra"),
      "#image-message",
      /^The link is about the example zebra, which is not here/,
    ],
  ] as const) {
    await browser.send("Page.navigate", { url: "about:blank" });
    await browser.send("Page.navigate", { url: `${url}${fragment}` });
    await browser.until(`document.querySelector("${where}")?.textContent`);
    const said = await browser.evaluate<string>(`document.querySelector("${where}").textContent`);
    expect(wanted.test(said), `a link that cannot be followed says why, not: ${said}`);
  }
  await browser.until('document.querySelector("#ask button")?.disabled === false');
  await browser.click("#tab-inside");
  await browser.until(settled);
  expect(await browser.evaluate('!document.querySelector("#copy-link").disabled'), "an answer has a link");
  await browser.drop("#subject", [join(SHAPES, "images/b.png")]);
  await browser.until('document.querySelector("#copy-link").disabled');
  await browser.until(settled);
  const note = await browser.evaluate<string>(text("#link-note"));
  expect(
    /^No link holds an image of your own/.test(note) &&
      (await browser.evaluate('document.querySelector("#copy-link").disabled')),
    `an image of one's own is in no link, and that is said, not: ${note}`,
  );
  await checkAxe(browser, "no link", expect);
  console.log(
    `link            restores answer, token, maps and ${asked.out ? "parts that are out" : "nothing"}: ${link}; “${note}”`,
  );
}

/** What an answer rests on: the map's peak is that of `attribute`. */
async function checkRests(browser: Chromium, { peak }: Twin, expect: Expect, shoot: Shoot): Promise<void> {
  await browser.evaluate('document.querySelector("#tokens .token").focus()');
  await browser.click("#maps label:nth-of-type(2)");
  await browser.until(`/^What “orange” rests on/.test(${caption})`, 120);
  const wanted = await peak();
  // Of 255: values of the map that is drawn are bytes, of which several may be the same.
  const [found, most] = await browser.evaluate<[number, number]>(`(() => {
    const canvas = document.querySelector("#overlay");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    // Of orange patches, those for which red is more than blue.
    const alphas = data.filter((_, i) => i % 4 === 3).map((alpha, i) => (data[4 * i] > data[4 * i + 2] ? alpha : 0));
    return [alphas[${wanted}], Math.max(...alphas)];
  })()`);
  expect(most > 200 && found >= most - 1, `the answer rests most on patch ${wanted}: ${found} of ${most}`);
  const scale = await browser.evaluate<string>(text("#scale"));
  expect(/^−[\d.]+ nats\s+[\d.]+ nats$/.test(scale), `the scale has its unit, not: ${scale}`);
  const words = await browser.evaluate<string>(text("#rest-words"));
  expect(/^What\s+[−\d.]+ nats\s+color/.test(words), `the question's words have their numbers, not: ${words}`);
  await shoot("inside-rests", 1400, 1250);
  await checkAxe(browser, "what an answer rests on", expect);
  await shoot("inside-rests-dark", 1400, 1250, "dark");
  await browser.click("#maps label:nth-of-type(3)");
  expect(!(await browser.evaluate(visible("#overlay"))), "the image alone has nothing over it");
  await browser.click("#maps label:nth-of-type(1)");
}

/** Until every part is measured. */
async function measure(browser: Chromium): Promise<void> {
  await browser.click("#measure");
  await browser.until('document.querySelector("#measure").textContent === "Measure each"', 300);
}

/** Measures every part. */
async function checkMeasure(browser: Chromium, expect: Expect, shoot: Shoot): Promise<void> {
  await measure(browser);
  const [measured, most] = await browser.evaluate<[number, string]>(
    `[document.querySelectorAll(".measured").length, ${text("#effect-low")}]`,
  );
  const all = await browser.evaluate<number>('document.querySelectorAll(".head, .switch").length');
  expect(measured === all && all === 68, `every part is measured, ${measured} of ${all}`);
  expect(/^without it −[\d.]+ nats/.test(most), `the scale has its unit, not: ${most}`);
  await shoot("inside-measured", 1400, 1250);
  await shoot("inside-measured-dark", 1400, 1250, "dark");
}

async function checkWidths(browser: Chromium, expect: Expect, shoot: Shoot): Promise<void> {
  for (const [width, height, scheme] of [
    [1400, 1250, "light"],
    [1400, 1250, "dark"],
    [800, 1400, "light"],
    [390, 844, "light"],
    [390, 844, "dark"],
  ] as const) {
    await browser.evaluate("scrollTo(0, 0)");
    await shoot(`inside-${width}-${scheme}`, width, height, scheme);
    await browser.send("Emulation.setDeviceMetricsOverride", {
      ...{ width, height, deviceScaleFactor: 1, mobile: true },
    });
    const wide = await browser.evaluate<number>("document.documentElement.scrollWidth");
    expect(wide <= width, `the explorer fits on a screen of ${width} pixels, not ${wide}`);
  }
  await browser.evaluate('document.querySelector("#queries").scrollIntoView()');
  await shoot("inside-390-scrolled", 390, 844);
  // The image stays in sight on a telephone, and a finger can use the switches.
  const seen = await browser.evaluate<boolean>(
    '{ const { top, bottom } = document.querySelector("#stack").getBoundingClientRect(); top >= 0 && bottom <= 844; }',
  );
  expect(seen, "on a telephone the image stays in sight beside the queries");
  const { x, y } = await browser.middleOf("#queries li:nth-child(6) .switch");
  await browser.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: [{ x, y }] });
  await browser.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
  await browser.until('document.querySelector("#queries li:nth-child(6) .switch").ariaChecked === "false"', 10);
  await browser.click("#restore");
  await browser.until(settled);
  await browser.send("Emulation.clearDeviceMetricsOverride");
}

export async function checkExplorer(
  browser: Chromium,
  url: string,
  examples: readonly Example[],
  expect: Expect,
  shoot: Shoot,
): Promise<void> {
  const { image } = examples[0]!;
  await browser.send("Emulation.setDeviceMetricsOverride", {
    ...{ width: 1400, height: 1250, deviceScaleFactor: 1, mobile: false },
  });
  await browser.send("Page.navigate", { url: `${url}?checkpoint=0` });
  await browser.until('document.querySelector("#ask button")?.disabled === false');
  await browser.evaluate('document.querySelector("#tab-ask").focus()');
  await browser.press("ArrowRight");
  await browser.until(settled);
  const longest = await browser.longestTask(async () => {
    await ask(browser, LONG);
    await browser.click("#queries li:nth-child(4) .switch");
    await browser.until(settled);
    await browser.click("#restore");
    await browser.until(settled);
  });
  const { cpuMs, wallMs, tasks } = longest;
  const figure = `${cpuMs.toFixed(1)} ms of the processor's time, ${wallMs.toFixed(1)} ms by the clock`;
  expect(
    tasks > 100 && cpuMs > 0 && cpuMs <= LONGEST_MS,
    `no task of the page's thread takes more than ${LONGEST_MS} ms: ${figure}, of ${tasks}`,
  );
  console.log(`main thread     longest of ${tasks} tasks while a model answers: ${figure}`);
  await checkTokens(browser, expect);
  await checkQueries(browser, expect);
  await checkAxe(browser, "the explorer", expect);
  await checkWidths(browser, expect, shoot);
  await browser.send("Emulation.setDeviceMetricsOverride", {
    ...{ width: 1400, height: 1250, deviceScaleFactor: 1, mobile: false },
  });
  await ask(browser, LONG);
  const [long, short] = [await twinOf(image, LONG), await twinOf(image, SHORT)];
  let changed: number;
  try {
    changed = await checkSwitches(browser, long, expect, shoot);
    expect(changed >= 3, `taking parts out changes answers, ${changed} of 4`);
    await ask(browser, SHORT);
    await checkRests(browser, short, expect, shoot);
  } finally {
    for (const twin of [long, short]) twin.close();
  }
  await checkMeasure(browser, expect, shoot);
  await checkAxe(browser, "the explorer, measured", expect);
  await ask(browser, LONG);
  await checkLink(browser, url, expect, shoot);
  await browser.send("Emulation.clearDeviceMetricsOverride");
  console.log(`inside          4 answers with parts taken out are those of generate, ${changed} of them changed`);
}

/** The README's image of the explorer: an answer with a query taken out, and what each part does to it. */
export async function explorerImage(browser: Chromium, url: string): Promise<Buffer> {
  const [width, height] = [1400, 1470];
  await browser.send("Emulation.setDeviceMetricsOverride", {
    ...{ width, height, deviceScaleFactor: 1, mobile: false },
  });
  await browser.send("Page.navigate", { url: `${url}?checkpoint=0` });
  await browser.until('document.querySelector("#ask button")?.disabled === false');
  await browser.click("#tab-inside");
  await browser.until(settled);
  await measure(browser);
  await browser.click("#queries li:nth-child(4) .switch");
  await browser.until(settled);
  await browser.point("#tokens .token:nth-child(10)");
  await browser.evaluate("scrollTo(0, 0)");
  return browser.screenshot(width, height, "light");
}
