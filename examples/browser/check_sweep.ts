/** The part of `npm run browser:check` about the page of `instructblip ablate`: keys, pointer, and narrow screens. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { runCommandLine } from "../../src/instructblip/cli/program.node.ts";
import type { Chromium } from "./chromium.ts";
import { EMBEDDED } from "./serve.ts";

const IMAGE = fileURLToPath(new URL("../shapes/images/a.png", import.meta.url));
const ASKED = [
  "--image",
  IMAGE,
  "--prompt",
  "What color is the square?",
  "--targets",
  "qformer.*,language_model.tokens",
];

type Expect = (holds: boolean, what: string) => void;
type Shoot = (name: string, width?: number, height?: number, scheme?: "light" | "dark") => Promise<void>;

export async function checkSweep(browser: Chromium, expect: Expect, shoot: Shoot): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "instructblip-ablate-"));
  try {
    const html = join(folder, "ablation.html");
    let said = "";
    const terminal = {
      out: async () => {},
      err: (text: string) => {
        said += text;
      },
      ...{ outIsTerminal: false, errIsTerminal: false, columns: 80, color: false },
    };
    const args = ["ablate", "--model", EMBEDDED, ...ASKED, "--html", html];
    const code = await runCommandLine(args, { terminal, signal: new AbortController().signal });
    expect(code === 0, `instructblip ablate writes its page, and does not say: ${said}`);
    await browser.send("Page.navigate", { url: pathToFileURL(html).href });
    await browser.until('document.querySelectorAll("svg.hm").length === 4');
    for (const key of ["Tab", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowRight"]) {
      for (const type of ["keyDown", "keyUp"]) await browser.send("Input.dispatchKeyEvent", { type, key, code: key });
    }
    const line = 'document.querySelector("#said-0").textContent';
    const byKeys = await browser.evaluate<string>(line);
    expect(/^2, cross-attention: -[\d.]+ \(log p /.test(byKeys), `arrow keys lead to layer 2, not to: ${byKeys}`);
    const cell = 'document.querySelectorAll("svg.hm")[0].querySelector(\'[data-at="0,0"]\').getBoundingClientRect()';
    const [x, y] = await browser.evaluate<[number, number]>(`(({ x, y }) => [x + 5, y + 5])(${cell})`);
    await browser.send("Input.dispatchMouseEvent", { type: "mouseMoved", x, y });
    const byPointer = await browser.evaluate<string>(line);
    expect(byPointer.startsWith("0, self-attention: "), `the pointer shows its cell, not: ${byPointer}`);
    for (const [width, scheme] of [
      [1400, "light"],
      [800, "dark"],
      [390, "light"],
    ] as const) {
      await shoot(`ablate-${width}`, width, 1200, scheme);
      await browser.send("Emulation.setDeviceMetricsOverride", {
        ...{ width, height: 800, deviceScaleFactor: 1, mobile: true },
      });
      const wide = await browser.evaluate<number>("document.documentElement.scrollWidth");
      expect(wide <= width, `the heat maps fit on a screen of ${width} pixels, not ${wide}`);
    }
    await browser.send("Emulation.clearDeviceMetricsOverride");
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  console.log("ablate          by keys and pointer, at 1400, 800 and 390 pixels");
}
