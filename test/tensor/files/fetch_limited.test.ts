/** Requests that end, whatever the server does. Nothing here leaves the machine. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { InputError } from "../../../src/tensor/errors.ts";
import { addressScope, type FetchOptions, fetchLimited, urlName } from "../../../src/tensor/files/fetch_limited.ts";

let handler: (request: IncomingMessage, response: ServerResponse) => void;
let seen: IncomingMessage[] = [];
const server = createServer((request, response) => {
  seen.push(request);
  handler(request, response);
});
beforeAll(() => new Promise<void>((done) => server.listen(0, "127.0.0.1", done)));
afterAll(() => {
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  seen = [];
});
const url = (path = "/file", host = "127.0.0.1") => `http://${host}:${(server.address() as AddressInfo).port}${path}`;

async function bytesOf(from: string, options: FetchOptions = {}): Promise<Uint8Array> {
  return (await fetchLimited(from, options)).bytes();
}

async function refusalOf(from: string): Promise<Error> {
  return fetchLimited(from).then(
    () => expect.unreachable(),
    (error: Error) => error,
  );
}

/** Sends a byte now and then, until the reader goes. */
const trickle = (_request: IncomingMessage, response: ServerResponse) => {
  const timer = setInterval(() => response.write("x"), 10);
  response.on("close", () => clearInterval(timer));
};
const closed = (response: ServerResponse) => new Promise<void>((resolve) => void response.on("close", resolve));

test("a body is read completely, and any status is a response", async () => {
  handler = (_request, response) => void response.writeHead(404, { "x-word": "no" }).end("not here");
  const answer = await fetchLimited(url());
  expect([answer.response.status, answer.response.headers.get("x-word")]).toEqual([404, "no"]);
  expect(new TextDecoder().decode(await answer.bytes())).toBe("not here");
});

test("HTTP_SLOW: a slow body fails and closes the connection; a sufficient rate does not", async () => {
  let gone: Promise<void> | undefined;
  handler = (request, response) => {
    gone = closed(response);
    trickle(request, response);
  };
  // A byte every 10 ms is never silent for 100.
  await expect(bytesOf(url(), { silenceMs: 100 })).rejects.toMatchObject({ name: "WeightError", code: "HTTP_SLOW" });
  await gone;
  handler = (request, response) => {
    trickle(request, response);
    setTimeout(() => response.end(), 900);
  };
  // Silent for no longer than a busy machine may make it, and judged once at least.
  expect((await bytesOf(url(), { silenceMs: 700, minRate: 0 })).length).toBeGreaterThan(0);
});

test("a slow consumer does not count as a slow server", async () => {
  handler = (_request, response) => void response.end(new Uint8Array(200_000));
  let size = 0;
  for await (const chunk of (await fetchLimited(url(), { silenceMs: 40, minRate: 1e6 })).chunks()) {
    size += chunk.length;
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
  expect(size).toBe(200_000);
});

test.each([
  ["ENOTFOUND", "its name cannot be resolved"],
  ["EAI_AGAIN", "its name cannot be resolved"],
  ["ECONNRESET", "it reset the connection"],
  ["ETIMEDOUT", "the connection timed out"],
  ["UND_ERR_CONNECT_TIMEOUT", "the connection timed out"],
  ["EHOSTUNREACH", "there is no route to it"],
  ["ERR_TLS_CERT_ALTNAME_INVALID", "its certificate is not trusted"],
])("IO: %s in words", async (code, words) => {
  const cause = Object.assign(new Error("secret"), { code });
  const failing = () => Promise.reject(new TypeError("fetch failed", { cause }));
  await expect(fetchLimited("http://a/b?secret", { fetch: failing })).rejects.toMatchObject({
    code: "IO",
    message: `b: the server cannot be reached: ${words}`,
  });
});

test("IO: a server that is idle before or within its response, or closes the connection", async () => {
  handler = () => {};
  await expect(fetchLimited(url(), { silenceMs: 30 })).rejects.toMatchObject({ code: "IO" });
  handler = (_request, response) => void response.write("x");
  await expect(bytesOf(url(), { silenceMs: 30 })).rejects.toMatchObject({ code: "IO" });
  handler = (_request, response) => void response.destroy();
  await expect(bytesOf(url())).rejects.toMatchObject({
    code: "IO",
    message: "file: the server cannot be reached: it closed the connection",
  });
  handler = (_request, response) => {
    response.writeHead(200, { "content-length": "9" });
    response.write("x", () => setTimeout(() => response.destroy(), 5));
  };
  await expect(bytesOf(url())).rejects.toMatchObject({ code: "IO", message: "file: the connection broke" });
});

test("HTTP_TIMEOUT: the request takes too long, although its rate is sufficient", async () => {
  handler = trickle;
  const limits = { timeoutMs: 100, minRate: 0 };
  await expect(bytesOf(url(), limits)).rejects.toMatchObject({ code: "HTTP_TIMEOUT" });
  handler = () => {};
  await expect(bytesOf(url(), limits)).rejects.toMatchObject({ code: "HTTP_TIMEOUT" });
});

test("FILE_TOO_LARGE: a body above the limit is not read further", async () => {
  let sent = 0;
  let gone: Promise<void> | undefined;
  handler = (_request, response) => {
    gone = closed(response);
    const pump = () => {
      while (sent < 200e6 && !response.destroyed) {
        sent += 65_536;
        if (!response.write(new Uint8Array(65_536))) return void response.once("drain", pump);
      }
    };
    pump();
  };
  await expect(bytesOf(url(), { maxBytes: 1e6 })).rejects.toMatchObject({ code: "FILE_TOO_LARGE" });
  await gone;
  expect(sent).toBeLessThan(50e6);
});

test("FILE_TOO_LARGE: a content-length above the limit fails before the body is read", async () => {
  let gone: Promise<void> | undefined;
  handler = (_request, response) => {
    gone = closed(response);
    response.writeHead(200, { "content-length": 99e9 }).write("x"); // and then nothing
  };
  await expect(fetchLimited(url(), { maxBytes: 1e6 })).rejects.toMatchObject({ code: "FILE_TOO_LARGE" });
  await gone;
});

test("throws the signal's reason: before, while waiting, while reading", async () => {
  const reason = new Error("stop");
  await expect(fetchLimited(url(), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  const waiting = new AbortController();
  handler = () => waiting.abort(reason);
  await expect(fetchLimited(url(), { signal: waiting.signal })).rejects.toBe(reason);
  const reading = new AbortController();
  handler = (_request, response) => void response.write("x", () => setTimeout(() => reading.abort(reason), 10));
  await expect(bytesOf(url(), { signal: reading.signal })).rejects.toBe(reason);
  // Even where whoever fetches does not listen.
  const deaf = new AbortController();
  setTimeout(() => deaf.abort(reason), 10);
  const never = () => new Promise<never>(() => {});
  await expect(fetchLimited(url(), { signal: deaf.signal, fetch: never })).rejects.toBe(reason);
});

test("no limit is none", async () => {
  handler = (_request, response) => void setTimeout(() => response.end("there"), 50);
  const none = Number.POSITIVE_INFINITY;
  expect((await bytesOf(url(), { silenceMs: none, timeoutMs: none })).length).toBe(5);
  expect((await bytesOf(url(), { silenceMs: 1e12, timeoutMs: 1e12 })).length).toBe(5);
});

test("errors have the caller's type", async () => {
  const error = (code: string, message: string) => new InputError(`MY_${code}`, message);
  await expect(fetchLimited("ftp://host/x", { error })).rejects.toMatchObject({
    name: "InputError",
    code: "MY_HTTP_URL",
  });
});

test.each([
  ["data:text/plain,x", "a data: URL cannot be fetched"],
  ["file:///etc/passwd", "a file: URL cannot be fetched"],
  ["http://user:secret@127.0.0.1/x", "x: a URL with a user or a password"],
  ["owner/name", '"owner/name" cannot be fetched'],
])("HTTP_URL: %s", async (given, message) => {
  const error = await refusalOf(given);
  expect(error).toMatchObject({ code: "HTTP_URL", message: expect.stringContaining(message) });
  expect(error.message).not.toContain("secret");
});

test("a message has neither a URL of 200 MB nor control characters", async () => {
  const image = `data:image/png;base64,${"A".repeat(200e6)}`;
  const error = await refusalOf(image);
  expect(error.message.length).toBeLessThan(300);
  expect(urlName(`https://host/${"a".repeat(5000)}`).length).toBeLessThan(100);
  expect(urlName("https://host/a\u202e\u009b.png?token=secret#x")).toBe("a\\u{202e}\\u{9b}.png");
});

/** "localhost" counts as public here, so that the server can be on both sides. */
const lookup = async (host: string) => (host === "localhost" ? ["93.184.216.34"] : ["127.0.0.1"]);
const sendOn = (to: string) => {
  handler = (request, response) => {
    if (request.url === "/there") response.end("arrived");
    else response.writeHead(302, { location: to }).end();
  };
};

test("HTTP_REDIRECT: from a public address to a private one", async () => {
  for (const to of [
    url("/there"),
    url("/there", "[::ffff:127.0.0.1]"),
    url("/there", "2130706433"),
    "http://10.0.0.1/",
  ]) {
    sendOn(to);
    await expect(bytesOf(url("/", "localhost"), { lookup })).rejects.toMatchObject({ code: "HTTP_REDIRECT" });
  }
  expect(seen.map(({ url }) => url)).toEqual(["/", "/", "/", "/"]);
  // A name that means a private address, too, and one of several is enough.
  sendOn(url("/there", "inside.example"));
  const names = async (host: string) => (host === "localhost" ? ["93.184.216.34"] : ["93.184.216.34", "192.168.1.1"]);
  await expect(bytesOf(url("/", "localhost"), { lookup: names })).rejects.toMatchObject({ code: "HTTP_REDIRECT" });
});

test("HTTP_REDIRECT: a URL given by a public server, to a private address", async () => {
  handler = (_request, response) => void response.end("arrived");
  const from = url("/", "localhost");
  await expect(bytesOf(url(), { from, lookup })).rejects.toMatchObject({ code: "HTTP_REDIRECT" });
  expect(new TextDecoder().decode(await bytesOf(url(), { from }))).toBe("arrived");
  expect(seen.length).toBe(1);
});

test("redirects from this machine are followed, without the token to another host", async () => {
  const headers = { Authorization: "Bearer secret", "X-Mine": "1" };
  sendOn("/there");
  expect(new TextDecoder().decode(await bytesOf(url(), { headers }))).toBe("arrived");
  sendOn(url("/there", "localhost"));
  expect(new TextDecoder().decode(await bytesOf(url(), { headers }))).toBe("arrived");
  expect(new TextDecoder().decode(await bytesOf(url(), { headers, lookup }))).toBe("arrived");
  const sent = seen
    .filter(({ url }) => url === "/there")
    .map(({ headers }) => [headers.authorization, headers["x-mine"]]);
  expect(sent).toEqual([
    ["Bearer secret", "1"],
    [undefined, "1"],
    [undefined, "1"],
  ]);
});

test("a host with a private and a public address may redirect to another port of its own", async () => {
  const both = async () => ["93.184.216.34", "10.0.0.1"];
  const other = createServer((_request, response) => void response.end("arrived"));
  await new Promise<void>((done) => other.listen(0, "localhost", done));
  sendOn(`http://localhost:${(other.address() as AddressInfo).port}/`);
  expect(new TextDecoder().decode(await bytesOf(url("/", "localhost"), { lookup: both }))).toBe("arrived");
  other.closeAllConnections();
  other.close();
});

test("HTTP_REDIRECT: in a circle; HTTP_URL: to what is no server", async () => {
  sendOn("/again");
  await expect(bytesOf(url())).rejects.toMatchObject({ code: "HTTP_REDIRECT" });
  expect(seen.length).toBe(11);
  sendOn("file:///etc/passwd");
  await expect(bytesOf(url())).rejects.toMatchObject({ code: "HTTP_URL" });
});

test.each([
  ["127.0.0.1 127.9.9.9 0.0.0.0 ::1 :: ::ffff:127.0.0.1 ::ffff:7f00:1 64:ff9b::127.0.0.1 2002:7f00:1::", 2],
  ["10.1.2.3 172.16.0.1 172.31.255.255 192.168.0.1 169.254.169.254 100.64.0.1 198.18.0.1 192.0.0.1 224.0.0.1", 1],
  ["255.255.255.255 fe80::1%eth0 fe80::1 fec0::1 fd00::1 ff02::1 ::ffff:10.0.0.1 64:ff9b::a00:1 ::10.0.0.1", 1],
  [
    "93.184.216.34 172.15.0.1 172.32.0.1 100.63.0.1 100.128.0.1 192.0.1.1 198.20.0.1 2606:2800:220:1:248:1893:25c8:1946",
    0,
  ],
] as const)("%s are %s steps inside", (addresses, steps) => {
  expect(addresses.split(" ").map((address) => [address, addressScope(address)])).toEqual(
    addresses.split(" ").map((address) => [address, steps]),
  );
});
