/** The work of `npm run browser:check`. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { checkAsk, type Example } from "./check_ask.ts";
import { checkAttribution } from "./check_attribution.ts";
import { checkCache } from "./check_cache.ts";
import { checkExplorer, explorerImage } from "./check_explorer.ts";
import { checkFirefox } from "./check_firefox.ts";
import { checkImages } from "./check_images.ts";
import { checkKept } from "./check_kept.ts";
import { checkLens } from "./check_lens.ts";
import { checkReport } from "./check_report.ts";
import { checkSweep } from "./check_sweep.ts";
import { checkWorker } from "./check_worker.ts";
import { Chromium, findChromium } from "./chromium.ts";
import { servePage } from "./serve.ts";

const IMAGES = fileURLToPath(new URL("../shapes/images/", import.meta.url));

const problems: string[] = [];
function expect(holds: boolean, what: string): void {
  if (holds) return;
  problems.push(what);
  console.log(`  FAILED  ${what}`);
}

/** Checks the page and prints what it finds; the exit code. */
export async function run({ screenshots, image }: { screenshots?: string; image?: string }): Promise<number> {
  const program = await findChromium();
  if (!program) {
    console.log("skipped: no Chromium was found on the PATH; CHROME_PATH=FILE names one");
    return 0;
  }
  const examples = JSON.parse(await readFile(join(IMAGES, "questions.json"), "utf8")) as Example[];
  const server = await servePage({ models: [], port: 0 });
  let browser: Chromium | undefined;
  try {
    browser = await Chromium.start(program);
    const { product } = await browser.send<{ product: string }>("Browser.getVersion");
    console.log(`browser         ${product}`);
    if (image !== undefined) {
      await writeFile(image, await explorerImage(browser, server.url));
      return 0;
    }
    const shoot = async (name: string, width = 1100, height = 720, scheme: "light" | "dark" = "light") => {
      if (screenshots === undefined) return;
      await mkdir(screenshots, { recursive: true });
      await writeFile(join(screenshots, `${name}.png`), await browser!.screenshot(width, height, scheme));
    };
    await checkAsk(browser, server.url, examples, expect, shoot);
    await checkKept(browser, server.url, examples, expect, shoot);
    await checkExplorer(browser, server.url, examples, expect, shoot);
    await checkLens(browser, expect, shoot);
    await checkSweep(browser, expect, shoot);
    await checkAttribution(browser, expect, shoot);
    await checkReport(browser, expect, shoot);
    const { complaints } = browser;
    expect(complaints.length === 0, `the browser's console is empty, not: ${complaints.join("; ")}`);
    await checkFirefox(examples, expect);
    // Last: failed requests are logged.
    await checkWorker(browser, expect);
    await checkCache(browser, expect);
    await checkImages(browser, expect);
  } finally {
    await browser?.close();
    await server.close();
  }
  console.log(problems.length === 0 ? "all as it should be" : `${problems.length} failed`);
  return problems.length === 0 ? 0 : 1;
}
