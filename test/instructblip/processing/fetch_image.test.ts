/** Images of a server that is overloaded: how often it is asked, and when. */
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { fetchImage } from "../../../src/instructblip/processing/image_source.ts";

let server: Server;
let url: string;
/** What is answered, in order, then the image; and when it was asked, on the fetching side. */
let answers: ((response: ServerResponse) => void)[] = [];
let asked = 0;
beforeAll(async () => {
  server = createServer((_, response) => {
    asked++;
    const answer = answers.shift();
    if (answer) answer(response);
    else response.end("image");
  });
  await new Promise<void>((listening) => server.listen(0, "localhost", listening));
  url = `http://localhost:${(server.address() as AddressInfo).port}/a.png`;
});
afterAll(() => void server.close());
beforeEach(() => {
  answers = [];
  asked = 0;
});

const busy = (status: number, pause: string) => (response: ServerResponse) =>
  void response.writeHead(status, { "retry-after": pause }).end();
const failure = (options: Parameters<typeof fetchImage>[1] = {}) =>
  fetchImage(url, options).then(
    () => undefined,
    (error: Error & { code?: string }) => error,
  );

test("it is asked again, and its image is had", async () => {
  answers = [busy(503, "0"), busy(429, new Date(0).toUTCString())];
  expect(Buffer.from(await fetchImage(url)).toString()).toBe("image");
  expect(asked).toBe(3);
});

test("three times, not for ever", async () => {
  answers = [busy(503, "0"), busy(500, "0"), busy(502, "0"), busy(503, "0")];
  expect(await failure()).toMatchObject({ code: "HTTP_BUSY", message: expect.stringMatching(/502\n/) });
  expect(asked).toBe(3);
});

test("a pause that is too long is told, and not waited for", async () => {
  answers = [busy(429, "11")];
  expect(await failure()).toMatchObject({ code: "HTTP_BUSY", message: expect.stringMatching(/429, .* of 11 s\n/) });
  answers = [busy(503, new Date(Date.now() + 3_600_000).toUTCString())];
  expect((await failure())!.message).toMatch(/ of (3600|3599) s\n/);
  expect(asked).toBe(2);
});

test("what is not there is not asked for again", async () => {
  answers = [(response) => void response.writeHead(404).end(), (response) => void response.writeHead(501).end()];
  expect(await failure()).toMatchObject({ code: "IMAGE_NOT_FOUND" });
  expect(await failure()).toMatchObject({ code: "IMAGE_NOT_FOUND" });
  expect(asked).toBe(2);
});

test("without a word about it, or one that is none, the pauses grow; an abort ends one", async () => {
  const timers = vi.spyOn(globalThis, "setTimeout");
  const controller = new AbortController();
  const pauses = () => timers.mock.calls.map(([, ms]) => ms).filter((ms) => ms === 500 || ms === 1000);
  answers = [(response) => void response.writeHead(503).end(), busy(503, "soon")];
  const reason = new Error("stopped");
  timers.mockImplementation(((act: () => void, ms: number) => {
    if (ms === 1000) controller.abort(reason);
    return setImmediate(ms === 500 ? act : () => {}) as unknown as NodeJS.Timeout;
  }) as typeof setTimeout);
  const error = await failure({ signal: controller.signal });
  expect(pauses()).toEqual([500, 1000]);
  timers.mockRestore();
  expect(error).toBe(reason);
  expect(asked).toBe(2);
});
