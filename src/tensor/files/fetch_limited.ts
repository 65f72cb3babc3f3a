/**
 * HTTP requests with limits: idle time, transfer rate, total time and size. Every wait can be aborted. A public server cannot
 * redirect to an address in the client's own network (server-side request forgery).
 */
import { EngineError, WeightError } from "../errors.ts";
import { quote } from "../shown.ts";

/** Creates the error of a failed request. Default: a WeightError. */
export type HttpFailure = (code: string, message: string, options?: { hint?: string; cause?: unknown }) => EngineError;

export interface FetchLimits {
  signal?: AbortSignal | undefined;
  /** Idle timeout: longest wait for the next bytes. Default 60,000 ms. */
  silenceMs?: number;
  /** Least rate of the body, in bytes per second, over each `silenceMs` of waiting; 0: no limit. Default 1024. */
  minRate?: number;
  /** Timeout of the whole request, including its body. Default: no limit. */
  timeoutMs?: number;
  /** Largest body, after decompression. Default: no limit. */
  maxBytes?: number;
}

export interface FetchOptions extends FetchLimits {
  method?: "GET" | "HEAD";
  headers?: Readonly<Record<string, string>>;
  /** Default: the global `fetch`. */
  fetch?: typeof fetch;
  /** Resolves a host to its addresses. Default: the system's resolver, in Node. */
  lookup?: (host: string) => Promise<readonly string[]>;
  error?: HttpFailure;
  /** Of the URL, for messages. Default: its {@link urlName}. */
  name?: string;
  /** The server that the URL came from, if it is not the user's: it is checked like a redirect from that server. */
  from?: string;
}

/** A response whose body has not been read. A caller that does not read it to its end must call `end`. */
export interface LimitedResponse {
  /** For status and headers; the body is read by `chunks` or `bytes`, once. */
  readonly response: Response;
  /** @throws HTTP_SLOW, HTTP_TIMEOUT, FILE_TOO_LARGE, IO (the connection broke); the signal's reason */
  chunks(): AsyncGenerator<Uint8Array>;
  /** The whole body. @throws as `chunks` */
  bytes(): Promise<Uint8Array<ArrayBuffer>>;
  /** Closes the connection. */
  end(): void;
}

const SILENCE_MS = 60_000;
const MIN_RATE = 1024;
const MAX_REDIRECTS = 10;
/** Longer than any URL that servers accept. */
const MAX_URL = 16_384;
/** Headers that are removed when a redirect leaves the origin. */
const SECRETS = ["authorization", "cookie", "proxy-authorization"];

/**
 * Sends a request. Resolves for any status. Redirects are followed as by fetch, except from a public address to a private one or
 * to this machine. Browsers follow redirects themselves, by their own rules.
 *
 * The address is resolved before fetch resolves it again: a host whose address changes in between (DNS rebinding) is not detected.
 *
 * @throws HTTP_URL, HTTP_REDIRECT, HTTP_TIMEOUT, FILE_TOO_LARGE (by its content-length), IO (unreachable, or the idle timeout);
 *   the signal's reason
 */
export async function fetchLimited(url: string | URL, options: FetchOptions = {}): Promise<LimitedResponse> {
  const { signal, silenceMs = SILENCE_MS, minRate = MIN_RATE, maxBytes = Number.POSITIVE_INFINITY } = options;
  const failure = options.error ?? ((code, message, more) => new WeightError(code, message, more));
  const { name = urlName(url) } = options;
  const first = parseHttpUrl(url, failure);
  signal?.throwIfAborted();

  const controller = new AbortController();
  const abort = () => controller.abort(signal?.reason);
  signal?.addEventListener("abort", abort);
  const limit = options.timeoutMs ?? Number.POSITIVE_INFINITY;
  const tooLong = () => controller.abort(failure("HTTP_TIMEOUT", `${name}: not there after ${limit} ms`));
  const deadline = after(limit, tooLong);
  const release = () => {
    clearTimeout(deadline);
    signal?.removeEventListener("abort", abort);
  };
  /** Waits for the server, with the idle timeout. */
  const withIdleTimeout = async <T>(wait: Promise<T>): Promise<T> => {
    const giveUp = () => controller.abort(failure("IO", `${name}: the server was silent for ${silenceMs} ms`));
    const timer = after(silenceMs, giveUp);
    try {
      return await untilAborted(wait, controller.signal);
    } finally {
      clearTimeout(timer);
    }
  };
  /** The error of a failed wait: the reason of the abort, or a network error. */
  const reasonOf = (cause: unknown, message: string): unknown => {
    if (controller.signal.aborted) return controller.signal.reason;
    return cause instanceof EngineError ? cause : failure("IO", `${name}: ${message}`, { cause });
  };

  let response: Response;
  try {
    response = await follow(first, { ...options, signal: controller.signal }, withIdleTimeout, failure);
  } catch (cause) {
    release();
    const why = whyUnreachable(cause);
    throw reasonOf(cause, `the server cannot be reached${why === undefined ? "" : `: ${why}`}`);
  }
  const reader = response.body?.getReader();
  const end = () => {
    release();
    reader?.cancel().catch(() => undefined); // rejects if the body is aborted
    controller.abort();
  };

  async function* chunks(): AsyncGenerator<Uint8Array> {
    let size = 0;
    // Only time spent waiting counts: the consumer may be slow, too.
    const window = { ms: 0, bytes: 0 };
    try {
      while (reader) {
        const begun = performance.now();
        const { done, value } = await withIdleTimeout(reader.read());
        if (done) return;
        size += value.length;
        if (size > maxBytes) {
          throw failure("FILE_TOO_LARGE", `${name}: larger than the limit of ${maxBytes} bytes`);
        }
        window.ms += performance.now() - begun;
        window.bytes += value.length;
        if (window.ms >= silenceMs) {
          if (window.bytes < (minRate * window.ms) / 1000) {
            const rate = Math.round((1000 * window.bytes) / window.ms);
            throw failure(
              "HTTP_SLOW",
              `${name}: the server sends ${rate} bytes a second, below the limit of ${minRate}`,
            );
          }
          window.ms = window.bytes = 0;
        }
        yield value;
      }
    } catch (cause) {
      throw reasonOf(cause, "the connection broke");
    } finally {
      end();
    }
  }

  // Fail early, by the content-length, which for a compressed body is smaller than the body.
  const announced = reader ? Number(response.headers.get("content-length")) : 0;
  if (response.ok && announced > maxBytes) {
    end();
    throw failure("FILE_TOO_LARGE", `${name}: ${announced} bytes; the limit is ${maxBytes}`);
  }

  return {
    response,
    chunks,
    async bytes() {
      const parts: Uint8Array[] = [];
      let size = 0;
      for await (const chunk of chunks()) {
        parts.push(chunk);
        size += chunk.length;
      }
      const all = new Uint8Array(size);
      let at = 0;
      for (const part of parts) {
        all.set(part, at);
        at += part.length;
      }
      return all;
    },
    end,
  };
}

/** Codes of Node's failures to connect, in words; of a browser's none are known. */
const WHY: readonly (readonly [RegExp, string])[] = [
  [/^(ENOTFOUND|EAI_)/, "its name cannot be resolved"],
  [/^ECONNREFUSED$/, "it refuses the connection"],
  [/^(ECONNRESET|EPIPE)$/, "it reset the connection"],
  [/^UND_ERR_SOCKET$/, "it closed the connection"],
  [/^(ETIMEDOUT|UND_ERR_\w+_TIMEOUT)$/, "the connection timed out"],
  [/^(EHOSTUNREACH|ENETUNREACH)$/, "there is no route to it"],
  [/CERT|SIGNATURE|HOSTNAME|ALTNAME/, "its certificate is not trusted"],
  [/SSL|TLS/, "it does not speak TLS as it should"],
];

/** Why fetch could not connect. */
function whyUnreachable(failure: unknown): string | undefined {
  const { code, message } = Object(Object(failure).cause) as { code?: unknown; message?: unknown };
  if (message === "bad port") return "its port is one that fetch does not open";
  return typeof code === "string" ? WHY.find(([pattern]) => pattern.test(code))?.[1] : undefined;
}

/** Longest host, and longest path, in a {@link urlPlace}. */
const MOST_PLACE = 80;

/** A URL's server and path, for messages that must tell one URL from others: bounded, without user, password, query and hash. */
export function urlPlace(url: string | URL): string {
  const text = String(url);
  if (text.length > MAX_URL || !URL.canParse(text)) return urlName(text);
  const { protocol, host, pathname } = new URL(text);
  if (!/^https?:$/.test(protocol)) return urlName(text);
  const [from, path] = [host, pathname].map((part) =>
    part.length > MOST_PLACE ? `…${part.slice(1 - MOST_PLACE)}` : part,
  );
  return `${protocol}//${from}${path}`;
}

/**
 * The last segment of a URL's path, for messages. The query is not shown, because it may have a token; nor the rest, which may be
 * long.
 */
export function urlName(url: string | URL): string {
  const text = String(url).slice(0, 4096);
  const scheme = /^\s*([a-z][a-z0-9+.-]{0,20}):/i.exec(text)?.[1]?.toLowerCase();
  if (scheme === "data" || scheme === "blob") return `a ${scheme}: URL`;
  const last = text
    .replace(/[?#].*$/s, "")
    .replace(/\/+$/, "")
    .split("/")
    .at(-1);
  return last ? quote(last).slice(1, -1) : "the URL";
}

/** @throws HTTP_URL if it is no URL, not http or https, or has a user or a password */
function parseHttpUrl(given: string | URL, failure: HttpFailure, base?: URL): URL {
  const text = String(given);
  const url = text.length <= MAX_URL && URL.canParse(text, base) ? new URL(text, base) : undefined;
  if (!url || !/^https?:$/.test(url.protocol)) {
    const scheme = /^\s*([a-z][a-z0-9+.-]{0,20}:)/i.exec(text.slice(0, 100))?.[1]?.toLowerCase();
    throw failure("HTTP_URL", `${scheme ? `a ${scheme} URL` : quote(text)} cannot be fetched`, {
      hint: /^https?:$/.test(scheme ?? "") ? `a URL has at most ${MAX_URL} characters` : "only http: and https: are",
    });
  }
  if (url.username || url.password) {
    throw failure("HTTP_URL", `${urlName(url)}: a URL with a user or a password in it is not fetched`, {
      hint: "servers take these in an Authorization header",
    });
  }
  return url;
}

/** Sends the request and follows redirects. */
async function follow(
  first: URL,
  options: FetchOptions & { signal: AbortSignal },
  withIdleTimeout: <T>(wait: Promise<T>) => Promise<T>,
  failure: HttpFailure,
): Promise<Response> {
  const { method = "GET", signal, name = urlName(first) } = options;
  // Globals must be called as functions: browsers throw on `options.fetch(…)`, "Illegal invocation".
  const send = options.fetch ?? fetch;
  const lookup = options.lookup ?? systemLookup();
  // Browsers do not expose the target of a redirect, and cannot resolve hosts.
  const redirect = lookup ? "manual" : "follow";
  /** Throws for a redirect to a more private address. */
  const mayNext = async (from: URL, next: URL) => {
    if (!lookup || next.hostname === from.hostname) return;
    const [sender, target] = await withIdleTimeout(
      Promise.all([addressesOf(from.hostname, lookup), addressesOf(next.hostname, lookup)]),
    );
    // The most public address of the sender, the most private one of the target.
    const allowed = Math.min(...(sender.length ? sender.map(addressScope) : [0]));
    if (Math.max(0, ...target.map(addressScope)) <= allowed) return;
    throw failure("HTTP_REDIRECT", `${name}: the server sends its reader on to an address in a private network`, {
      hint: "such an address is only opened when it is named itself",
    });
  };
  if (options.from !== undefined) await mayNext(new URL(options.from), first);
  let url = first;
  let headers = new Headers(options.headers);
  for (let redirects = 0; ; redirects++) {
    const response = await withIdleTimeout(send(url.href, { method, headers, redirect, signal }));
    const location = [301, 302, 303, 307, 308].includes(response.status) && response.headers.get("location");
    if (!lookup || !location) return response;
    response.body?.cancel().catch(() => undefined);
    if (redirects === MAX_REDIRECTS) {
      throw failure("HTTP_REDIRECT", `${name}: the server sends its reader on more than ${MAX_REDIRECTS} times`);
    }
    const next = parseHttpUrl(location, failure, url);
    await mayNext(url, next);
    if (next.origin !== url.origin) {
      headers = new Headers(headers);
      for (const secret of SECRETS) headers.delete(secret);
    }
    url = next;
  }
}

/** Starts a timer; none if `ms` is above a timer's limit of 24 days. */
function after(ms: number, act: () => void): ReturnType<typeof setTimeout> | undefined {
  return ms < 2 ** 31 ? setTimeout(act, ms) : undefined;
}

/** Waits for `ms`. @throws the signal's reason */
export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    const wait = new Promise<void>((resolve) => {
      timer = after(ms, resolve);
    });
    await (signal ? untilAborted(wait, signal) : wait);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits for a promise until the signal is aborted, even if the promise ignores the signal. */
export async function untilAborted<T>(wait: Promise<T>, signal: AbortSignal): Promise<T> {
  let stop = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
  });
  try {
    return await Promise.race([wait, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

// --- addresses -----------------------------------------------------------------------------------------------------

/** The system's resolver; undefined in browsers. */
function systemLookup(): FetchOptions["lookup"] {
  const dns = globalThis.process?.getBuiltinModule?.("node:dns/promises");
  if (!dns) return undefined;
  return async (host) => (await dns.lookup(host, { all: true })).map(({ address }) => address);
}

/** The addresses of a host; none if it is unknown: the request then fails by itself, or a proxy resolves it. */
async function addressesOf(host: string, lookup: NonNullable<FetchOptions["lookup"]>): Promise<readonly string[]> {
  const literal = host.replace(/^\[|\]$/g, "");
  return wordsOf(literal) ? [literal] : lookup(host).catch(() => []);
}

/** The scope of an address: 0 public, 1 private or link-local, 2 loopback. */
export function addressScope(address: string): 0 | 1 | 2 {
  const words = wordsOf(address);
  if (!words) return 0;
  const [a, b, c, , , f, g, h] = words;
  const zeros = words.findIndex((word) => word !== 0);
  // IPv4 embedded in IPv6: ::ffff:0:0/96, NAT64 64:ff9b::/96, 6to4 2002::/16.
  if (zeros === 5 && f === 0xffff) return scopeOfIPv4(g, h);
  if (a === 0x64 && b === 0xff9b) return scopeOfIPv4(g, h);
  if (a === 0x2002) return scopeOfIPv4(b, c);
  if (zeros === -1 || (zeros === 7 && h === 1)) return 2; // :: and ::1
  const isLocal = (a & 0xfe00) === 0xfc00 || (a & 0xff80) === 0xfe80 || (a & 0xff00) === 0xff00 || zeros >= 6;
  return isLocal ? 1 : 0;
}

/** The scope of an IPv4 address, as two 16-bit words. Source: the IANA special-purpose address registry (RFC 6890). */
function scopeOfIPv4(high: number, low: number): 0 | 1 | 2 {
  const [a, b] = [high >> 8, high & 255];
  if (a === 127 || a === 0) return 2;
  const isPrivate =
    a === 10 ||
    (a === 100 && b >= 64 && b < 128) ||
    (a === 169 && b === 254) ||
    (a === 172 && b >= 16 && b < 32) ||
    (a === 192 && b === 168) ||
    (a === 192 && b === 0 && low >> 8 === 0) ||
    (a === 198 && (b === 18 || b === 19)) ||
    a >= 224;
  return isPrivate ? 1 : 0;
}

type Eight = readonly [number, number, number, number, number, number, number, number];

function areEight(words: readonly number[]): words is Eight {
  return words.length === 8;
}

/** The eight words of an IPv6 address, or of an IPv4-mapped one for IPv4; undefined for a host name. */
function wordsOf(address: string): Eight | undefined {
  const four = /^(?:(.*):)?(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(address);
  if (four) {
    const [, front = "::ffff", a, b, c, d] = four;
    const word = (high?: string, low?: string) => (Number(high) * 256 + Number(low)).toString(16);
    return wordsOf(`${front}:${word(a, b)}:${word(c, d)}`);
  }
  const bare = address.replace(/%.*$/s, ""); // without the zone index
  if (!bare.includes(":") || !/^[0-9a-f:]+$/i.test(bare)) return undefined;
  const [left = [], right] = bare
    .split("::")
    .map((half) => (half ? half.split(":").map((w) => Number.parseInt(w, 16)) : []));
  if (right === undefined) return areEight(left) ? left : undefined;
  const gap = Math.max(0, 8 - left.length - right.length);
  const words = [...left, ...new Array<number>(gap).fill(0), ...right];
  return areEight(words) ? words : undefined;
}
