/**
 * Images by URL: fetched with limits of size and time, or decoded from a `data:` URL. Nothing here depends on the platform.
 */

import { formatBytes } from "../../tensor/device/memory.ts";
import { InputError } from "../../tensor/errors.ts";
import { fetchLimited, pause, urlName, urlPlace } from "../../tensor/files/fetch_limited.ts";

/** Largest file: above any photograph's, small enough for memory. */
export const MAX_IMAGE_BYTES = 256 * 2 ** 20;
/** Timeout of a whole download. */
const TIMEOUT_MS = 120_000;

/** Whether an image's name is a URL, not a path: `C:\\cat.jpg` has one letter before its colon. */
export function isUrl(image: string): boolean {
  return /^([a-z][a-z0-9+.-]+:\/\/|data:|blob:)/i.test(image);
}

/** An image's name in messages: the end of its path or URL. */
export function imageName(image: string | URL): string {
  const text = typeof image === "string" ? image : image.href;
  if (isUrl(text)) return urlName(text);
  return text.length > 160 ? `…${text.slice(-159)}` : text;
}

/** @throws InputError IMAGE_TOO_LARGE */
export function checkImageBytes(size: number, name: string): void {
  if (size <= MAX_IMAGE_BYTES) return;
  const message = `${name}: ${formatBytes(size)}; the limit is ${formatBytes(MAX_IMAGE_BYTES)}`;
  throw new InputError("IMAGE_TOO_LARGE", message);
}

/** Attempts at an image whose server is overloaded or failing. */
const ATTEMPTS = 3;
/** The pause before the second attempt, twice as long before the next; a server may ask for another in Retry-After. */
const PAUSE_MS = 500;
/** A server that asks for a longer pause is not asked again. */
const LONGEST_PAUSE_MS = 10_000;

/**
 * The bytes of an image on the web. A server that is overloaded or failing is asked three times.
 *
 * @param url http: or https:
 * @throws InputError IMAGE_NOT_FOUND (there is none), IMAGE_TOO_LARGE, HTTP_URL, HTTP_REDIRECT; HTTP_BUSY, HTTP_UNREACHABLE,
 *   HTTP_TIMEOUT and HTTP_SLOW, which a later attempt may not have; IO (no connection that is trusted); the signal's reason
 */
export async function fetchImage(url: string | URL, options: FetchImageOptions = {}): Promise<Uint8Array> {
  for (let attempt = 1; ; attempt++) {
    const { ok, status, headers, bytes, end } = await requestImage(url, options);
    if (ok) return bytes();
    end();
    const message = `${urlPlace(url)}: the server answers HTTP status ${status}`;
    if (!isPassing(status)) throw new InputError("IMAGE_NOT_FOUND", message, { hint: OTHERWISE });
    const asked = retryAfter(headers.get("retry-after"));
    if (attempt === ATTEMPTS || (asked ?? 0) > LONGEST_PAUSE_MS) {
      const when = asked === undefined || asked === 0 ? "" : `, and asks for a pause of ${Math.ceil(asked / 1000)} s`;
      throw new InputError("HTTP_BUSY", `${message}${when}`, { hint: LATER });
    }
    await pause(asked ?? PAUSE_MS * 2 ** (attempt - 1), options.signal);
  }
}

export interface FetchImageOptions {
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
}

const OTHERWISE = "download the image, and give the file";
const LATER = "try again later, or download it and give the file";

async function requestImage(url: string | URL, options: FetchImageOptions) {
  const { response, bytes, end } = await fetchLimited(url, {
    ...options,
    name: urlPlace(url),
    timeoutMs: TIMEOUT_MS,
    maxBytes: MAX_IMAGE_BYTES,
    error: (code, message, more) => {
      if (code === "IO" && !isLasting(more?.cause))
        return new InputError("HTTP_UNREACHABLE", message, { hint: LATER, ...more });
      if (code === "HTTP_TIMEOUT" || code === "HTTP_SLOW")
        return new InputError(code, message, { hint: LATER, ...more });
      return new InputError(code === "FILE_TOO_LARGE" ? "IMAGE_TOO_LARGE" : code, message, {
        hint: OTHERWISE,
        ...more,
      });
    },
  });
  const { ok, status, headers } = response;
  return { ok, status, headers, bytes, end };
}

/** Milliseconds of a Retry-After, which is in seconds or a date; undefined if there is none that can be read. */
function retryAfter(header: string | null): number | undefined {
  const text = header?.trim();
  if (!text) return undefined;
  const ms = /^\d+$/.test(text) ? 1000 * Number(text) : Date.parse(text) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}

/** What a server that answers so says of what it can do: another time it says the same. */
const LASTING = [501, 505];
/** Whether a server that answers so may answer otherwise later: it is overloaded, or failing. */
const isPassing = (status: number) =>
  status === 408 || status === 425 || status === 429 || (status >= 500 && !LASTING.includes(status));

/** Whether fetch fails as it will later: a certificate or protocol is refused, or the port, of which fetch opens only some. */
function isLasting(failure: unknown): boolean {
  const { code, message } = Object(Object(failure).cause) as { code?: unknown; message?: unknown };
  return /CERT|SIGNATURE|SSL|TLS|HOSTNAME/.test(String(code)) || message === "bad port";
}

/**
 * Decodes a `data:` URL (RFC 2397).
 *
 * @param name for messages, which never show the URL
 * @throws InputError IMAGE_SOURCE, IMAGE_TOO_LARGE
 */
export function bytesOfDataUrl(url: string, name: string): Uint8Array {
  const comma = url.indexOf(",");
  if (comma < 0) throw new InputError("IMAGE_SOURCE", `${name}: a data: URL must have a comma before its data`);
  const isBase64 = /;\s*base64\s*$/i.test(url.slice(Math.max(0, comma - 20), comma));
  checkImageBytes((url.length - comma) * (isBase64 ? 3 / 4 : 1), name);
  const bytes = unescaped(url.slice(comma + 1).replace(/#.*$/s, ""));
  if (!isBase64) return bytes;
  try {
    const binary = atob(new TextDecoder().decode(bytes));
    // Written in place. (Uint8Array.from() builds a list first: gigabytes for the largest image.)
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes.subarray(0, binary.length);
  } catch {
    throw new InputError("IMAGE_SOURCE", `${name}: the data: URL is not base64, as it says it is`);
  }
}

/** Text as UTF-8, percent-decoded. */
function unescaped(text: string): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  let to = 0;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at]!;
    const code = byte === 0x25 ? /^[0-9a-f]{2}$/i.exec(String.fromCharCode(...bytes.subarray(at + 1, at + 3))) : null;
    bytes[to++] = code ? Number.parseInt(code[0], 16) : byte;
    if (code) at += 2;
  }
  return bytes.subarray(0, to);
}
