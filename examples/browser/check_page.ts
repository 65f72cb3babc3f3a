/** What the parts of `npm run browser:check` about pages of commands share: a command writes its page, which fits on screens. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { runCommandLine } from "../../src/instructblip/cli/program.node.ts";
import type { Chromium } from "./chromium.ts";
import { EMBEDDED } from "./serve.ts";

export const IMAGE = fileURLToPath(new URL("../shapes/images/a.png", import.meta.url));

export type Expect = (holds: boolean, what: string) => void;
export type Shoot = (name: string, width?: number, height?: number, scheme?: "light" | "dark") => Promise<void>;

/**
 * Runs `instructblip COMMAND --html` on the embedded checkpoint and opens the page; after `check` it is looked at on three
 * screens.
 *
 * @param isThere an expression that is true when the page is drawn
 */
export async function checkPage(
  browser: Chromium,
  expect: Expect,
  shoot: Shoot,
  [command, ...asked]: readonly [string, ...string[]],
  isThere: string,
  check: () => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), `instructblip-${command}-`));
  try {
    const html = join(folder, "page.html");
    let said = "";
    const terminal = {
      out: async () => {},
      err: (text: string) => {
        said += text;
      },
      ...{ outIsTerminal: false, errIsTerminal: false, columns: 80, color: false },
    };
    const args = [command, "--model", EMBEDDED, "--image", IMAGE, ...asked, "--html", html];
    const code = await runCommandLine(args, { terminal, signal: new AbortController().signal });
    expect(code === 0, `instructblip ${command} writes its page, and does not say: ${said}`);
    await browser.send("Page.navigate", { url: pathToFileURL(html).href });
    await browser.until(isThere);
    await check();
    await checkScreens(browser, expect, shoot, command);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Looks at the open page on three screens. @param name of the page */
export async function checkScreens(browser: Chromium, expect: Expect, shoot: Shoot, name: string): Promise<void> {
  for (const [width, scheme] of [
    [1400, "light"],
    [800, "dark"],
    [390, "light"],
  ] as const) {
    await shoot(`${name}-${width}`, width, 1200, scheme);
    await browser.send("Emulation.setDeviceMetricsOverride", {
      ...{ width, height: 800, deviceScaleFactor: 1, mobile: true },
    });
    const wide = await browser.evaluate<number>("document.documentElement.scrollWidth");
    expect(wide <= width, `the page of ${name} fits on a screen of ${width} pixels, not ${wide}`);
  }
  await browser.send("Emulation.clearDeviceMetricsOverride");
}

/** Tab, two times down, and right, left, right. */
export async function pressArrows(browser: Chromium): Promise<void> {
  for (const key of ["Tab", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowRight"]) {
    for (const type of ["keyDown", "keyUp"]) await browser.send("Input.dispatchKeyEvent", { type, key, code: key });
  }
}
