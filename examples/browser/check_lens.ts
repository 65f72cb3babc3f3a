/** The part of `npm run browser:check` about the page of `instructblip lens`: keys, pointer, layers, and narrow screens. */
import { checkPage, type Expect, pressArrows, type Shoot } from "./check_page.ts";
import type { Chromium } from "./chromium.ts";

const ASKED = ["lens", "--prompt", "What shapes are in the image?"] as const;

export async function checkLens(browser: Chromium, expect: Expect, shoot: Shoot): Promise<void> {
  const isThere = 'document.querySelectorAll("#queries li").length === 12';
  await checkPage(browser, expect, shoot, ASKED, isThere, async () => {
    await checkGrid(browser, expect);
    await checkQueries(browser, expect);
  });
  console.log("lens            by keys, pointer and layer, at 1400, 800 and 390 pixels");
}

/** Arrow keys move between the cells of the answer, and the details follow. */
async function checkGrid(browser: Chromium, expect: Expect): Promise<void> {
  await pressArrows(browser);
  const [at, detail] = await browser.evaluate<[string, string]>(
    '[document.activeElement.dataset.at, document.querySelector("#detail").innerText]',
  );
  expect(at === "2,1", `Tab, two times down and once right lead to the second token after layer 1, not to ${at}`);
  const wanted = /^After layer 1, in place of yellow, which it gives [\d.]+ %:\s+yellow [\d.]+ %/;
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
