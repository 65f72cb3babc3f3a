/** Self-contained pages: text from anywhere stays text, and nothing is loaded. */
import { expect, test } from "vitest";
import { escapeHtml, htmlPage, jsonElement } from "../../../src/instructblip/instruments/page.ts";

const HOSTILE = `</script><script>alert("1")</script> & 'x' <!-- \u2028\u2029\u0007`;

test("text is escaped, for elements and for attributes", () => {
  expect(escapeHtml(HOSTILE)).toBe(
    "&lt;/script&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;x&#39; &lt;!-- \u2028\u2029\ufffd",
  );
  expect(escapeHtml("a\tb\nc")).toBe("a\tb\nc");
});

test("data for the script cannot end its element, and is read back as it was", () => {
  const given = { text: HOSTILE, numbers: [1, -0.5, 1e-30], nested: { "<": null } };
  const [, id, text] = /^<script type="application\/json" id="([^"]*)">(.*)<\/script>$/s.exec(
    jsonElement("data", given),
  )!;
  expect(id).toBe("data");
  expect(text).not.toMatch(/[<\u2028\u2029]/);
  expect(JSON.parse(text)).toEqual(given);
});

test("a page is whole, and loads nothing", () => {
  const html = htmlPage({ title: HOSTILE, lead: HOSTILE, body: "<main>here</main>", script: 'f("</script>")' });
  expect(html.match(/<\/script/g)).toHaveLength(1);
  expect(html).toContain("<main>here</main>");
  expect(html).toContain("default-src 'none'");
  expect(html).not.toMatch(/\b(src|href)=|url\(|@import|https?:/);
  expect(htmlPage({ title: "t", body: "" })).not.toContain("<script");
});
