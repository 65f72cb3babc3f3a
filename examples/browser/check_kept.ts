/**
 * The part of `npm run browser:check` about a page that lasts: a model kept in the browser, and a GPU device that is lost while there
 * is a conversation.
 */
import { type Example, text, visible } from "./check_ask.ts";
import { checkAxe } from "./check_axe.ts";
import type { Expect, Shoot } from "./check_page.ts";
import type { Chromium } from "./chromium.ts";

const READY = 'document.querySelector("#ask button")?.disabled === false';

/** Asks and waits for the end of the answer. */
async function ask(browser: Chromium, question: string): Promise<string> {
  await browser.until(READY);
  await browser.evaluate(`(() => {
    document.querySelector("#question").value = ${JSON.stringify(question)};
    document.querySelector("#ask button").click();
  })()`);
  await browser.until('document.querySelector("#talk li:last-child .answer:not(.writing)")');
  return (await browser.evaluate<string>(text("#talk li:last-child .answer"))).trim();
}

/** A model that is kept says so; a reload takes nothing of the server; forgetting is a button. */
async function checkKeep(
  browser: Chromium,
  url: string,
  { questions, answers }: Example,
  expect: Expect,
  shoot: Shoot,
) {
  await browser.send("Page.navigate", { url });
  await browser.until(visible("#checkpoints"));
  await browser.click("#keep");
  await browser.click("#offered button");
  await browser.until(READY);
  const said = await browser.evaluate<string>(text("#kept-text"));
  expect(
    /^This browser keeps 6\.\d MB of [\d.]+ [MG]B that it may, until (its disk is nearly full|you delete it)\.$/.test(
      said,
    ),
    `a kept model says how much is kept, and how long, not: ${said}`,
  );
  const answer = await ask(browser, questions[0]);
  expect(answer === answers[0], `a kept model answers ${answers[0]}, not ${answer}`);
  const whole = await browser.evaluate<string>(text("#kept-folders"));
  expect(/^The embedded checkpoint\s+6\.\d MB\s+Forget$/.test(whole), `each model has its size, not: ${whole}`);
  await checkAxe(browser, "a kept model", expect);
  await shoot("kept");
  await browser.send("Page.navigate", { url: `${url}?checkpoint=0&keep` });
  const again = await ask(browser, questions[0]);
  expect(again === answers[0], `a second visit answers ${answers[0]}, not ${again}`);
  await browser.send("Page.navigate", { url: `${url}?checkpoint=0&keep&dtype=int8` });
  const int8 = await ask(browser, questions[0]);
  expect(int8 === answers[0], `kept as int8 it answers ${answers[0]}, not ${int8}`);
  const quantized = await browser.evaluate<string>(text("#kept-folders"));
  const [, kept = ""] = /\s([\d.]+) MB, quantized, in place of 6\.\d MB\s+Forget$/.exec(quantized) ?? [];
  expect(Number(kept) > 1 && Number(kept) < 5, `quantized weights take the originals' place, not: ${quantized}`);
  await checkAxe(browser, "a model that is kept quantized", expect);
  await shoot("kept-int8", 1100, 720, "dark");
  await browser.click("#kept-folders button");
  await browser.until(`!${visible("#kept")}`);
  console.log(`kept            “${said}”; ${kept} MB as int8, in place of the originals; forgotten on request`);
}

/** Run in front of the page's script: its worker's devices can be destroyed by a message. */
const DESTROYS = `{
  const Original = Worker;
  window.Worker = class extends Original {
    constructor(script, options) {
      const href = new URL(script, location.href).href;
      const blob = (source) => URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
      const patch = blob(\`
        const request = GPUAdapter.prototype.requestDevice;
        const devices = [];
        GPUAdapter.prototype.requestDevice = async function (...given) {
          const device = await request.apply(this, given);
          devices.push(device);
          return device;
        };
        new BroadcastChannel("destroy").onmessage = () => devices.splice(0).forEach((device) => device.destroy());\`);
      // Not by import(): messages that come while it waits would be lost.
      super(blob(\`import "\${patch}"; import "\${href}";\`), options);
    }
  };
}`;

/** A lost device: the page says so, loads the model again, and the conversation goes on. */
async function checkLost(
  browser: Chromium,
  url: string,
  { questions, answers }: Example,
  expect: Expect,
  shoot: Shoot,
) {
  await browser.send("Page.setBypassCSP", { enabled: true }); // for the script in front of the worker's
  await browser.beforePage(DESTROYS, async () => {
    await browser.send("Page.navigate", { url: `${url}?checkpoint=0` });
    await browser.until(READY);
  });
  const destroy = 'new BroadcastChannel("destroy").postMessage("now")';
  const first = await ask(browser, questions[0]);
  expect(first === answers[0], `before the loss ${questions[0]} ${answers[0]}, not ${first}`);
  await browser.evaluate(destroy);
  await browser.until(visible("#lost"));
  const notice = await browser.evaluate<string>(text("#lost"));
  expect(
    /^The GPU device was lost: .*[^.]\. The model is loaded again/.test(notice),
    `the page says that the device was lost, not: ${notice}`,
  );
  const second = await ask(browser, questions[1]);
  expect(second === answers[1], `after the loss ${questions[1]} ${answers[1]}, not ${second}`);
  const done = await browser.evaluate<string>(text("#lost"));
  expect(/has been loaded again/.test(done), `the page says that the model is there again, not: ${done}`);
  const asked = await browser.evaluate<string[]>(
    '[...document.querySelectorAll("#talk .question")].map(({ innerText }) => innerText)',
  );
  expect(asked.join() === questions.slice(0, 2).join(), `the conversation stays, not: ${asked.join()}`);
  await checkAxe(browser, "a lost device", expect);
  await shoot("lost");
  // While an answer is written: it ends with the reason, and can be asked again.
  await browser.evaluate(`(() => {
    document.querySelector("#question").value = "Describe the image.";
    document.querySelector("#ask button").click();
    ${destroy};
  })()`);
  await browser.until('document.querySelector("#talk li:last-child .answer.failed")');
  const failed = await browser.evaluate<string>(text("#talk li:last-child .answer.failed"));
  expect(/device was lost/.test(failed), `an answer that is lost says why, not: ${failed}`);
  const third = await ask(browser, questions[0]);
  expect(third === answers[0], `after the second loss ${questions[0]} ${answers[0]}, not ${third}`);
  await browser.send("Page.setBypassCSP", { enabled: false });
  console.log(`device lost     “${notice}”; “${failed.split("\n")[0]}”; the conversation goes on`);
}

export async function checkKept(
  browser: Chromium,
  url: string,
  examples: readonly Example[],
  expect: Expect,
  shoot: Shoot,
): Promise<void> {
  await checkKeep(browser, url, examples[0], expect, shoot);
  await checkLost(browser, url, examples[0], expect, shoot);
}
