/** The part of `npm run browser:check` about the page of `npm run report`: keys, pointer, axe, narrow screens, and paper. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseResults } from "../../scripts/report/inputs.ts";
import { reportPage } from "../../scripts/report/page.ts";
import { checkAxe } from "./check_axe.ts";
import { checkScreens, type Expect, type Shoot } from "./check_page.ts";
import type { Chromium } from "./chromium.ts";

const RESULTS = fileURLToPath(new URL("../../bench/results/", import.meta.url));

export async function checkReport(browser: Chromium, expect: Expect, shoot: Shoot): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "instructblip-report-"));
  try {
    const files = (await readdir(RESULTS)).filter((name) => name.endsWith(".jsonl"));
    const results = files.map(async (name) => parseResults(name, await readFile(join(RESULTS, name), "utf8")));
    const html = join(folder, "report.html");
    await writeFile(html, reportPage(await Promise.all(results)));
    await browser.send("Page.navigate", { url: pathToFileURL(html).href });
    await browser.until('document.readyState === "complete" && document.querySelector(".walk input")');
    await checkPoints(browser, expect);
    await browser.evaluate('document.querySelector("details").open = true');
    await checkAxe(browser, "report", expect);
    await browser.evaluate('document.querySelector("details").open = false');
    await checkScreens(browser, expect, shoot, "report");
    const { data } = await browser.send<{ data: string }>("Page.printToPDF", { printBackground: false });
    const pages =
      Buffer.from(data, "base64")
        .toString("latin1")
        .match(/\/Type ?\/Page\b/g)?.length ?? 0;
    expect(pages >= 2 && pages <= 10, `the charts fit on a few sheets of paper, not ${pages}`);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  console.log("report          by keys and pointer, at 1400, 800 and 390 pixels, on paper");
}

/** The slider goes from point to point and says the table's row; so does the pointer. */
async function checkPoints(browser: Chromium, expect: Expect): Promise<void> {
  const figure = 'document.querySelector(".figure")';
  await browser.evaluate(`${figure}.querySelector(".walk input").focus()`);
  const said = `${figure}.querySelector("output").textContent`;
  const marked = `[...${figure}.querySelectorAll(".at")].map(({ dataset }) => dataset.row)`;
  const seen: string[] = [await browser.evaluate<string>(said)];
  for (const key of ["ArrowRight", "ArrowRight"]) {
    for (const type of ["keyDown", "keyUp"]) {
      await browser.send("Input.dispatchKeyEvent", { type, key, code: key, windowsVirtualKeyCode: 39 });
    }
    seen.push(await browser.evaluate<string>(said));
  }
  expect(new Set(seen).size === 3, `each press of an arrow key leads to another point, not: ${seen.join("; ")}`);
  const rows = await browser.evaluate<string[]>(marked);
  const cells = `[...${figure}.querySelector("tbody").rows[${rows[0]}].cells].map((cell) => cell.textContent).filter(Boolean)`;
  const texts = await browser.evaluate<string[]>(cells);
  expect(rows.length === 3 && new Set(rows).size === 1, `one point of each drawing is marked, not ${rows.join()}`);
  expect(texts.length > 5 && texts.every((text) => seen[2].includes(text)), `the row is said whole, not: ${seen[2]}`);
  const point = `[...${figure}.querySelectorAll("[data-row]")].filter((each) => each.checkVisibility()).at(-1)`;
  const place = `(({ left, top, width, height }) => [left + width / 2, top + height / 2])(${point}.getBoundingClientRect())`;
  await browser.evaluate(`${point}.scrollIntoView({ block: "center" })`);
  const [x, y] = await browser.evaluate<[number, number]>(place);
  await browser.send("Input.dispatchMouseEvent", { type: "mouseMoved", x, y });
  const pointed = await browser.evaluate<string>(said);
  expect(pointed !== seen[2], `the pointer leads to its point, not to: ${pointed}`);
}
