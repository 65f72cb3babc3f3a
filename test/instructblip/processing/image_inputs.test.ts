/**
 * All image inputs of a processor in Node: the same pixels from every kind, copied at the call, and errors with hints for
 * other values. `npm run browser:check` tests those of browsers.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nodePlatform } from "../../../src/instructblip/pretrained/platform.node.ts";
import { readImage, setPlatform } from "../../../src/instructblip/pretrained/platform.ts";
import type { RgbImage } from "../../../src/instructblip/processing/image.ts";
import { bytesOfDataUrl, checkImageBytes, MAX_IMAGE_BYTES } from "../../../src/instructblip/processing/image_source.ts";
import { InstructBlipProcessor } from "../../../src/instructblip/processing/instructblip_processor.ts";
import type { ImageInput } from "../../../src/instructblip/processing/processor_input.ts";
import { EngineError } from "../../../src/tensor/errors.ts";
import { compiled } from "../../compiled.ts";
import { type FolderFiles, filesOf, golden, memoryFolder, path } from "./processor_golden.ts";

const { folders } = golden<{ folders: Record<string, FolderFiles> }>("processors.json.gz");
const FILE = path("images/420.jpg");
const BYTES = new Uint8Array(readFileSync(FILE));

let processor: InstructBlipProcessor;
let pixels: RgbImage;
let folder: string;
let server: Server;
let site: string;

beforeAll(async () => {
  setPlatform(nodePlatform);
  processor = await InstructBlipProcessor.from_pretrained(memoryFolder(filesOf(folders.vicuna)));
  pixels = await readImage(BYTES, "420.jpg");
  folder = await mkdtemp(join(tmpdir(), "images-"));
  server = createServer((request, response) => {
    switch (request.url?.replace(/\?.*/, "")) {
      case "/420.jpg":
        return response.end(BYTES);
      case "/moved.jpg":
        return response.writeHead(302, { location: "/420.jpg?token=secret" }).end();
      case "/page.jpg":
        return response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><p>Sign in");
      case "/cut.jpg":
        response.writeHead(200, { "content-length": BYTES.length }).write(BYTES.subarray(0, 500));
        return setTimeout(() => response.destroy(), 10);
      case "/busy.jpg":
        return response.writeHead(503, { "retry-after": "0" }).end();
      case "/never.jpg":
        return response.writeHead(501).end();
      case "/reset.jpg":
        return request.socket.resetAndDestroy();
      case "/often.jpg":
        return response.writeHead(429, { "retry-after": "3600" }).end();
      default:
        return response.writeHead(404).end("no such file");
    }
  });
  await new Promise<void>((listening) => server.listen(0, "localhost", listening));
  site = `http://localhost:${(server.address() as AddressInfo).port}`;
});
afterAll(async () => {
  server.close();
  await rm(folder, { recursive: true });
});

const valuesOf = async (images: ImageInput | readonly ImageInput[]) => (await processor({ images })).pixel_values!.data;

async function refusal(images: unknown): Promise<EngineError> {
  const error = await valuesOf(images as ImageInput).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(EngineError);
  expect((error as EngineError).message.length).toBeLessThan(400);
  return error as EngineError;
}

const rgba = ({ width, height, data }: RgbImage, alpha: (i: number) => number) =>
  Uint8ClampedArray.from({ length: width * height * 4 }, (_, i) =>
    i % 4 === 3 ? alpha(i >> 2) : data[3 * (i >> 2) + (i % 4)],
  );
const buffer = () => BYTES.slice().buffer;

describe("the same pixels", () => {
  const kinds: [string, () => ImageInput][] = [
    ["a path", () => FILE],
    ["a file: URL", () => pathToFileURL(FILE)],
    ["a file: URL as a string", () => pathToFileURL(FILE).href],
    ["an http: URL", () => `${site}/420.jpg`],
    ["an http: URL object", () => new URL(`${site}/420.jpg?size=large#top`)],
    ["an http: URL that is sent on", () => `${site}/moved.jpg`],
    ["a data: URL in base64", () => `data:image/jpeg;base64,${Buffer.from(BYTES).toString("base64")}`],
    ["a data: URL with escapes", () => `DATA:;base64,${encodeURIComponent(Buffer.from(BYTES).toString("base64"))}`],
    ["a data: URL in percents", () => `data:,${[...BYTES].map((x) => `%${x.toString(16).padStart(2, "0")}`).join("")}`],
    ["a blob: URL", () => URL.createObjectURL(new Blob([BYTES]))],
    ["a Uint8Array", () => BYTES],
    ["a part of a larger Uint8Array", () => new Uint8Array([0, 0, ...BYTES, 0]).subarray(2, -1)],
    ["a Buffer", () => Buffer.from(BYTES)],
    ["a Uint8ClampedArray", () => new Uint8ClampedArray(BYTES)],
    ["an ArrayBuffer", buffer],
    ["a DataView", () => new DataView(buffer())],
    ["a Blob", () => new Blob([BYTES])],
    ["a Response", () => new Response(BYTES)],
    ["pixels", () => pixels],
    ["pixels in a Buffer", () => ({ ...pixels, data: Buffer.from(pixels.data) })],
    ["pixels with alpha, which is dropped", () => ({ ...pixels, data: rgba(pixels, (i) => i & 255) })],
    ["a tensor", () => ({ data: pixels.data, shape: [pixels.height, pixels.width, 3] })],
    ["a clamped tensor", () => ({ data: new Uint8ClampedArray(pixels.data), shape: [pixels.height, pixels.width, 3] })],
  ];
  test.each(kinds)("come out of %s", async (_, make) => {
    expect(await valuesOf(make())).toEqual(await valuesOf(pixels));
  });

  test("come out of what a canvas gives, and are not multiplied by alpha", async () => {
    // An ImageData as a page has it: its class has a name of its own, its data are clamped bytes, its getters its prototype's.
    class ImageData {
      get width() {
        return pixels.width;
      }
      get height() {
        return pixels.height;
      }
      get data() {
        return rgba(pixels, () => 7);
      }
      get colorSpace() {
        return "srgb";
      }
    }
    Object.defineProperty(ImageData.prototype, Symbol.toStringTag, { value: "ImageData" });
    expect(await valuesOf(new ImageData())).toEqual(await valuesOf(pixels));
  });

  test("are of the time of the call", async () => {
    const expected = await valuesOf([pixels, pixels, pixels, pixels]);
    const [bytes, plain, withAlpha] = [BYTES.slice(), pixels.data.slice(), rgba(pixels, () => 255)];
    const url = pathToFileURL(FILE);
    const size = { width: pixels.width, height: pixels.height };
    const images = [url, bytes, { ...size, data: plain }, { ...size, data: withAlpha }];
    const values = valuesOf(images);
    for (const data of [bytes, plain, withAlpha]) data.fill(0);
    url.pathname = "/nowhere";
    expect(await values).toEqual(expected);
  });
});

describe("data: URLs", () => {
  test.each([
    ["data:,A%42%4", "AB%4"],
    ["data:;base64,QUJD", "ABC"],
    ["data:image/png;charset=utf-8;base64,QU JD%0A", "ABC"],
    ["data:text/plain;base64,QQ%3D%3D#fragment", "A"],
    ["data:text/plain;not64,QUJD", "QUJD"],
  ])("%s", (url, text) => {
    expect(new TextDecoder().decode(bytesOfDataUrl(url, "a"))).toBe(text);
  });
});

test("a large image in base64 takes no more memory than its letters and its bytes", () => {
  const source = compiled("src/instructblip/processing/image_source.ts");
  const program = `import { bytesOfDataUrl } from ${JSON.stringify(source)};
    const bytes = bytesOfDataUrl("data:;base64," + "QUJD".repeat(2 ** 23), "a");
    console.log(bytes.length, new TextDecoder().decode(bytes.subarray(-3)));`;
  const options = ["--max-old-space-size=160", "--input-type=module", "-e", program];
  expect(execFileSync(process.execPath, options, { encoding: "utf8", stdio: "pipe" })).toBe(`${3 * 2 ** 23} ABC\n`);
});

test("a file may be of 256 MiB", () => {
  checkImageBytes(MAX_IMAGE_BYTES, "a");
  expect(() => checkImageBytes(MAX_IMAGE_BYTES + 1, "a")).toThrow("a: 256 MiB; the limit is 256 MiB");
});

describe("is refused", () => {
  test.each<[string, () => unknown, string, RegExp]>([
    ["a missing file", () => join(folder, "missing.png"), "NOT_FOUND", /missing\.png: no such file/],
    ["a folder", () => folder, "NOT_REGULAR_FILE", /not a regular file/],
    ["an empty path", () => "", "BAD_PIXELS", /image 0 cannot be ""/],
    ["a path with a zero byte", () => "a\0b.png", "IMAGE_SOURCE", /a\\u\{0\}b\.png/],
    ["base64 without its data:", () => "iVBORw0KGgo".repeat(10_000), "IMAGE_SOURCE", /write data:image\/png;base64,/],
    ["a file: URL of another host", () => "file://elsewhere/a.png", "IMAGE_SOURCE", /a\.png: .* three slashes/s],
    ["a file: URL with %2F", () => "file:///a%2Fb.png", "IMAGE_SOURCE", /%2F/],
    ["another scheme", () => "s3://bucket/a.png", "IMAGE_SOURCE", /not read from s3: URLs/],
    ["a URL that is none", () => "http://[1/a.png", "HTTP_URL", /cannot be fetched/],
    ["a URL with a password", () => "http://me:secret@localhost/a.png", "HTTP_URL", /^(?!.*secret)/s],
    [
      "a port that fetch does not open",
      () => "http://localhost:1/a.png?key=secret",
      "IO",
      /\/a\.png: .*: its port (?!.*secret)/s,
    ],
    [
      "no TLS, to https:",
      () => `${site.replace("http", "https")}/a.png`,
      "IO",
      /a\.png: the server cannot be reached: it does not speak TLS .*hint: download/s,
    ],
    [
      "a name that does not resolve",
      () => "http://nowhere.invalid/1/a.png?key=secret#secret",
      "HTTP_UNREACHABLE",
      /^http:\/\/nowhere\.invalid\/1\/a\.png: the server cannot be reached: its name cannot be resolved\n.*hint: try again/,
    ],
    [
      "a long URL",
      () => `http://${"a.".repeat(100)}invalid/${"b/".repeat(1000)}a.png`,
      "HTTP_UNREACHABLE",
      /^http:\/\/….{79}….{73}\/a\.png: .* cannot be resolved/,
    ],
    [
      "a connection that is reset",
      () => `${site}/reset.jpg`,
      "HTTP_UNREACHABLE",
      /reset\.jpg: .*: it reset the connection\n/,
    ],
    ["what the server never can", () => `${site}/never.jpg`, "IMAGE_NOT_FOUND", /never\.jpg: .* 501\n.*hint: download/],
    [
      "a server that is not there",
      () => "http://localhost:2/a.png?key=secret",
      "HTTP_UNREACHABLE",
      /^http:\/\/localhost:2\/a\.png: the server cannot be reached: it refuses the connection\n(?!.*secret)/s,
    ],
    ["a server that fails", () => `${site}/busy.jpg`, "HTTP_BUSY", /busy\.jpg: .* 503\n.*try again later/],
    [
      "a server that is asked too often",
      () => `${site}/often.jpg`,
      "HTTP_BUSY",
      /often\.jpg: .* 429, and asks for a pause of 3600 s\n/,
    ],
    ["what the server does not have", () => `${site}/none.jpg`, "IMAGE_NOT_FOUND", /none\.jpg: .* 404/],
    ["a page instead", () => `${site}/page.jpg`, "IMAGE_FORMAT", /page\.jpg: a web page, .* image itself/s],
    ["a connection that breaks", () => `${site}/cut.jpg`, "HTTP_UNREACHABLE", /cut\.jpg: the connection broke/],
    ["a blob: URL that is not known", () => "blob:nodedata:1234", "IMAGE_NOT_FOUND", /has been revoked/],
    ["a data: URL without a comma", () => `data:${"x".repeat(10_000)}`, "IMAGE_SOURCE", /^image 0: .* comma/],
    ["a data: URL that is no base64", () => "data:image/png;base64,!!!!", "IMAGE_SOURCE", /^image 0: .* not base64/],
    ["a large data: URL of no image", () => `data:,${"x".repeat(2 ** 20)}`, "IMAGE_FORMAT", /^image 0: not an image/],
    ["a promise", () => Promise.resolve(BYTES), "BAD_PIXELS", /image 0 cannot be Promise.*await it/s],
    ["numbers without a shape", () => new Float32Array(12), "BAD_PIXELS", /Float32Array.*shape: \[height/s],
    ["a canvas of a library", () => ({ getContext: () => null }), "BAD_PIXELS", /getImageData/],
    ["an object", () => ({ url: "a".repeat(10_000) }), "BAD_PIXELS", /image 0 cannot be \{"url": ?"aaa/],
    ["a number", () => 7, "BAD_PIXELS", /image 0 cannot be 7/],
    ["nothing in a list", () => [null], "BAD_PIXELS", /image 0 cannot be null/],
    ["a response that failed", () => new Response("", { status: 503 }), "IMAGE_NOT_FOUND", /HTTP status 503/],
    ["an empty file", () => new Blob([]), "IMAGE_TRUNCATED", /image 0: the file is empty/],
    ["an empty response", () => new Response(), "IMAGE_TRUNCATED", /image 0: the file is empty/],
    ["pixels without a size", () => ({ data: BYTES }), "BAD_PIXELS", /width and height/],
    [
      "pixels of words",
      () => ({ width: 1, height: 1, data: new Uint16Array(4) }),
      "BAD_PIXELS",
      /must be a Uint8Array/,
    ],
  ])("%s", async (_, make, code, message) => {
    const error = await refusal(make());
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(message)]);
  });

  test("a response that has been read", async () => {
    const response = new Response(BYTES);
    await response.arrayBuffer();
    expect((await refusal(response)).code).toBe("BAD_PIXELS");
  });

  test("by its place in the batch", async () => {
    const none = { ...pixels, data: new Uint8Array(5) };
    expect((await refusal([BYTES, BYTES.subarray(0, 900)])).message).toMatch(/^image 1: the JPEG ends/);
    expect((await refusal([pixels, BYTES, none])).message).toMatch(/^image 2: /);
    expect((await refusal([pixels, 7])).message).toMatch(/^image 1 /);
  });

  test("without its name's control characters", async () => {
    const name = join(folder, "a\u202egnp\u009b31m.png");
    await writeFile(name, "<html>");
    const { message } = await refusal(name);
    expect(message).toMatch(/a\\u\{202e\}gnp\\u\{9b\}31m\.png: a web page/);
  });
});
