/** Checks kernels and answers, as the command line's `doctor` does, in a worker of its own; a second click stops it. */
import type { PageExam } from "../serve.ts";
import { element, fetched } from "./elements.ts";
import { WorkerClient } from "./worker_client.ts";

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
    const client = new WorkerClient("worker.js");
    const write = (text: string) => {
      page.report.textContent += text;
      page.report.scrollTop = page.report.scrollHeight;
    };
    try {
      const quick = new URLSearchParams(location.search).has("quick");
      const asked = { checkpoint, exam: await Promise.all(exam), quick };
      const summary = await client.call("examine", asked, {
        signal,
        tell: (news) => {
          if ("report" in news) write(news.report);
          else page.checking.textContent = news.progress;
        },
      });
      write(summary);
    } finally {
      client.end();
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
      page.checking.textContent = signal.aborted ? "stopped" : (error as Error).message;
    } finally {
      running = undefined;
      page.button.textContent = "Check this adapter";
    }
  };
}
