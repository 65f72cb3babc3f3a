/** Checks kernels and answers, as the command line's `doctor` does, in a worker of its own; a second click stops it. */

import { connect } from "../../../src/worker.ts";
import type { PageExam } from "../serve.ts";
import type { PageCalls } from "../worker/protocol.ts";
import { element, fetched, saidOf } from "./elements.ts";

const page = {
  button: element("button", "#doctor"),
  checking: element("span", "#checking"),
  report: element("pre", "#report"),
};

export function offerDoctor(): void {
  let running: AbortController | undefined;
  const check = async (signal: AbortSignal) => {
    const { checkpoint, images } = (await (await fetched("exam.json")).json()) as PageExam;
    const exam = images.map(async ({ image, ...asked }) => {
      return { ...asked, name: image, image: await (await fetched(image)).blob() };
    });
    const client = connect<PageCalls>(new Worker("worker.js", { type: "module" }));
    const write = (text: string) => {
      page.report.textContent += text;
      page.report.scrollTop = page.report.scrollHeight;
    };
    try {
      const quick = new URLSearchParams(location.search).has("quick");
      const { url, files } = checkpoint;
      const place = { url: new URL(url, location.href).href, files };
      const asked = { checkpoint: place, exam: await Promise.all(exam), quick };
      const summary = await client.call("examine", asked, {
        signal,
        tell: (news) => {
          if ("report" in news) write(news.report);
          else page.checking.textContent = news.progress;
        },
      });
      write(summary);
    } finally {
      client.terminate();
    }
  };
  page.report.tabIndex = 0; // it scrolls
  page.button.disabled = false;
  page.button.onclick = async () => {
    if (running) return running.abort();
    running = new AbortController();
    const { signal } = running;
    page.button.textContent = "Stop";
    page.report.hidden = false;
    page.report.textContent = "";
    try {
      await check(signal);
      page.checking.textContent = signal.aborted ? "stopped" : "";
    } catch (error) {
      page.checking.textContent = signal.aborted ? "stopped" : saidOf(error).message;
    } finally {
      running = undefined;
      page.button.textContent = "Check this adapter";
    }
  };
}
