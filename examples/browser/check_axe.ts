/** The part of `npm run browser:check` about accessibility: axe-core must find nothing, in light and in dark. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Expect } from "./check_page.ts";
import type { Chromium } from "./chromium.ts";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

interface Violation {
  readonly id: string;
  readonly help: string;
  readonly nodes: readonly { readonly html: string; readonly failureSummary: string }[];
}

/** @param what the part of the page that is open, for the message */
export async function checkAxe(browser: Chromium, what: string, expect: Expect): Promise<void> {
  await browser.evaluate(`${AXE}; undefined`);
  for (const value of ["light", "dark"]) {
    await browser.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] });
    const { violations, passes } = await browser.evaluate<{ violations: Violation[]; passes: number }>(
      "axe.run().then(({ violations, passes }) => ({ violations, passes: passes.length }))",
    );
    for (const { id, help, nodes } of violations) {
      const where = nodes.slice(0, 3).map(({ html, failureSummary }) => `${html.slice(0, 200)} ${failureSummary}`);
      expect(false, `axe: ${what}, ${value}: ${id}, ${help}: ${nodes.length} places, as ${where.join("; ")}`);
    }
    expect(passes > 10, `axe: ${what}, ${value}: only ${passes} rules applied`);
  }
}
