/** The part of `npm run browser:check` about the page of `instructblip ablate`: keys, pointer, and narrow screens. */
import { checkPage, type Expect, pressArrows, type Shoot } from "./check_page.ts";
import type { Chromium } from "./chromium.ts";

const PROMPT = "What color is the square?";
const ASKED = ["ablate", "--prompt", PROMPT, "--targets", "qformer.*,language_model.tokens"] as const;

export async function checkSweep(browser: Chromium, expect: Expect, shoot: Shoot): Promise<void> {
  const isThere = 'document.querySelectorAll("svg.hm").length === 4';
  await checkPage(browser, expect, shoot, ASKED, isThere, async () => {
    await pressArrows(browser);
    const line = 'document.querySelector("#said-0").textContent';
    const byKeys = await browser.evaluate<string>(line);
    expect(/^2, cross-attention: -[\d.]+ \(log p /.test(byKeys), `arrow keys lead to layer 2, not to: ${byKeys}`);
    const cell = 'document.querySelectorAll("svg.hm")[0].querySelector(\'[data-at="0,0"]\').getBoundingClientRect()';
    const [x, y] = await browser.evaluate<[number, number]>(`(({ x, y }) => [x + 5, y + 5])(${cell})`);
    await browser.send("Input.dispatchMouseEvent", { type: "mouseMoved", x, y });
    const byPointer = await browser.evaluate<string>(line);
    expect(byPointer.startsWith("0, self-attention: "), `the pointer shows its cell, not: ${byPointer}`);
  });
  console.log("ablate          by keys and pointer, at 1400, 800 and 390 pixels");
}
