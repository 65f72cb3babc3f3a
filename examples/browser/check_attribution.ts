/** The part of `npm run browser:check` about the page of `instructblip attribute`: tokens, methods, keys, narrow screens. */
import { checkPage, type Expect, type Shoot } from "./check_page.ts";
import type { Chromium } from "./chromium.ts";

const ASKED = ["attribute", "--prompt", "What color is the square?"] as const;

export async function checkAttribution(browser: Chromium, expect: Expect, shoot: Shoot): Promise<void> {
  const isThere = 'document.querySelectorAll("#tokens button").length === 3';
  const where = () => browser.evaluate<string>("where.textContent");
  const changes = () =>
    browser.evaluate<string>('[...document.querySelectorAll("[data-change]")].map((x) => x.textContent).join()');
  const press = async (...keys: string[]) => {
    for (const key of keys) {
      for (const type of ["keyDown", "keyUp"]) await browser.send("Input.dispatchKeyEvent", { type, key, code: key });
    }
  };
  await checkPage(browser, expect, shoot, ASKED, isThere, async () => {
    const [first, words] = [await where(), await changes()];
    expect(
      /^Most at row [345], column [012]: −[\d.]+ nats without it$/.test(first),
      `the answer rests on the square, not: ${first}`,
    );
    await press("Tab", "ArrowRight", "ArrowRight");
    const chosen = await browser.evaluate<string>("document.activeElement.innerText.trim()");
    expect(chosen.startsWith("</s>"), `arrow keys choose tokens, not: ${chosen}`);
    expect(
      (await where()).startsWith("Nowhere") && (await changes()) !== words,
      `the end rests on words alone, not: ${await where()}`,
    );
    await press("ArrowRight", "Tab", "ArrowRight");
    const method = await browser.evaluate<string>("meaning.textContent");
    expect(method.startsWith("Rollout"), `keys choose the method, not: ${method}`);
    expect(/^Most at row \d, column \d: [\d.]+ % of the weight$/.test(await where()), "shares are in percent");
    await press("Tab", "ArrowDown");
    const [, row] = /row (\d)/.exec(await where()) ?? [];
    await press("ArrowUp");
    const said = await where();
    expect(said.startsWith("Row ") && !said.includes(`row ${row}`), `arrow keys read patches, not: ${said}`);
    const box = "map.getBoundingClientRect()";
    const [x, y] = await browser.evaluate<[number, number]>(`[${box}.x + 4, ${box}.y + 4]`);
    await browser.send("Input.dispatchMouseEvent", { type: "mouseMoved", x, y });
    expect((await where()).startsWith("Row 0, column 0: "), `the pointer shows its patch, not: ${await where()}`);
  });
  console.log("attribute       by keys and pointer, at 1400, 800 and 390 pixels");
}
