/** The part of `npm run browser:check` about the page of `instructblip lens`: keys, pointer, layers, and narrow screens. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { runCommandLine } from "../../src/instructblip/cli/program.node.ts";
import type { Chromium } from "./chromium.ts";
import { EMBEDDED } from "./serve.ts";

const IMAGE = fileURLToPath(new URL("../shapes/images/a.png", import.meta.url));
const PROMPT = "What shapes are in the image?";

type Expect = (holds: boolean, what: string) => void;
type Shoot = (name: string, width?: number, height?: number, scheme?: "light" | "dark") => Promise<void>;

export async function checkLens(browser: Chromium, expect: Expect, shoot: Shoot): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "instructblip-lens-"));
  try {
    const html = join(folder, "lens.html");
    let said = "";
    const terminal = {
      out: async () => {},
      err: (text: string) => {
        said += text;
      },
      ...{ outIsTerminal: false, errIsTerminal: false, columns: 80, color: false },
    };
    const args = ["lens", "--model", EMBEDDED, "--image", IMAGE, "--prompt", PROMPT, "--html", html];
    const code = await runCommandLine(args, { terminal, signal: new AbortController().signal });
    expect(code === 0, `instructblip lens writes its page, and does not say: ${said}`);
    await browser.send("Page.navigate", { url: pathToFileURL(html).href });
    await browser.until('document.querySelectorAll("#queries li").length === 12');
    await checkGrid(browser, expect);
    await checkQueries(browser, expect);
    for (const [width, scheme] of [
      [1400, "light"],
      [800, "dark"],
      [390, "light"],
    ] as const) {
      await shoot(`lens-${width}`, width, 1200, scheme);
      await browser.send("Emulation.setDeviceMetricsOverride", {
        ...{ width, height: 800, deviceScaleFactor: 1, mobile: true },
      });
      const wide = await browser.evaluate<number>("document.documentElement.scrollWidth");
      expect(wide <= width, `the lens fits on a screen of ${width} pixels, not ${wide}`);
    }
    await browser.send("Emulation.clearDeviceMetricsOverride");
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  console.log("lens            by keys, pointer and layer, at 1400, 800 and 390 pixels");
}

/** Arrow keys move between the cells of the answer, and the details follow. */
async function checkGrid(browser: Chromium, expect: Expect): Promise<void> {
  for (const key of ["Tab", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowRight"]) {
    for (const type of ["keyDown", "keyUp"]) await browser.send("Input.dispatchKeyEvent", { type, key, code: key });
  }
  const [at, detail] = await browser.evaluate<[string, string]>(
    '[document.activeElement.dataset.at, document.querySelector("#detail").innerText]',
  );
  expect(at === "2,1", `Tab, two times down and once right lead to the second token after layer 1, not to ${at}`);
  const wanted = /^After layer 1, in place of yellow, which it gives \d+ %:\s+yellow \d+ %/;
  expect(wanted.test(detail), `the details are those of the cell, not: ${detail}`);
}

/** The image tokens: the surest words, those of one layer, and where a query looked. */
async function checkQueries(browser: Chromium, expect: Expect): Promise<void> {
  const first = 'document.querySelector("#queries li").innerText';
  const any = await browser.evaluate<string>(first);
  expect(/ in [0-3]\b/.test(any), `the surest words say in which layer, not: ${any}`);
  await browser.evaluate('document.querySelector("#any").click()');
  await browser.evaluate('{ layer.value = 2; layer.dispatchEvent(new Event("input")); }');
  const [shown, one] = await browser.evaluate<[string, string]>(
    `[document.querySelector("#shown").textContent, ${first}]`,
  );
  expect(shown === "1" && !/ in [0-3]\b/.test(one), `the words of layer 1 are shown, not of ${shown}: ${one}`);
  const alphas = 'map.getContext("2d").getImageData(0, 0, map.width, map.height).data.filter((_, i) => i % 4 === 3)';
  const before = await browser.evaluate<string>(`${alphas}.join()`);
  await browser.evaluate('document.querySelectorAll("#queries button")[4].focus()');
  const after = await browser.evaluate<string>(`${alphas}.join()`);
  const pressed = await browser.evaluate<number>('document.querySelectorAll("#queries [aria-pressed=true]").length');
  const where = await browser.evaluate<string>("where.textContent");
  expect(before !== after && pressed === 1, "another query has another map, and is marked");
  expect(/^Where query 4 looked: up to \d+ % on one patch$/.test(where), `the caption names the query, not: ${where}`);
}
