/**
 * The part of `npm run browser:check` about images: every kind of file, and every image source of a page, must give Pillow's
 * pixels. It has its own page and server, and a second origin.
 */
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { build } from "esbuild";
import { decodeImage } from "../../src/instructblip/processing/image.node.ts";
import type { Chromium } from "./chromium.ts";
import { EMBEDDED } from "./serve.ts";

const DATA = fileURLToPath(new URL("../../test/golden/processor/data/", import.meta.url));
const IMAGES = join(DATA, "images");
const ENTRY = fileURLToPath(new URL("../../src/index.ts", import.meta.url));

/** Largest differences from Pillow's pixels in Chromium. */
const DIFFERENCES: readonly (readonly [RegExp, number])[] = [
  [/^(cmyk|ycck).*\.jpg$/, 1],
  [/\.avif$/, 1],
];

/** The functions that the page's script offers to the checks. */
const PAGE = `<!doctype html><body><script type="module">
  import * as lib from "/lib.js";
  const processor = await lib.AutoProcessor.from_pretrained("/checkpoint");
  const asIs = { do_resize: false, do_rescale: false, do_normalize: false };
  Object.assign(window, {
    /** The processor's pixels of an image, u8[H, W, 3]. */
    async rgb(images, options) {
      const { data, shape: [, , height, width] } = (await processor({ images, ...asIs, ...options })).pixel_values;
      const pixels = width * height;
      return { width, height, data: Array.from({ length: 3 * pixels }, (_, i) => data[(i % 3) * pixels + Math.floor(i / 3)]) };
    },
    /** Its error. */
    async refusal(images) {
      const error = await rgb(images).then(() => undefined, (thrown) => thrown);
      return error instanceof lib.EngineError ? error.code + ": " + error.message : "not refused: " + error;
    },
    bytes: async (name) => new Uint8Array(await (await fetch(name)).arrayBuffer()),
    async img(src, crossOrigin = null) {
      const image = new Image();
      image.crossOrigin = crossOrigin;
      image.src = src;
      await image.decode();
      return image;
    },
    /** A canvas with an image on it. */
    draw(image, canvas = document.createElement("canvas")) {
      canvas.width = image.naturalWidth ?? image.width;
      canvas.height = image.naturalHeight ?? image.height;
      canvas.getContext("2d").drawImage(image, 0, 0);
      return canvas;
    },
  });
  window.ready = true;
</script>`;

interface Pixels {
  readonly width: number;
  readonly height: number;
  readonly data: ArrayLike<number>;
}

/** The largest difference of two images; infinite if sizes differ. */
function difference(a: Pixels, b: Pixels): number {
  if (a.width !== b.width || a.height !== b.height || a.data.length !== b.data.length) return Number.POSITIVE_INFINITY;
  let most = 0;
  for (let i = 0; i < a.data.length; i++) most = Math.max(most, Math.abs(a.data[i] - b.data[i]));
  return most;
}

/** Pillow's pixels of a file: those of image.node.ts, which tests compare with Pillow, except for AVIF. */
async function pillow(name: string, exif_transpose = false): Promise<Pixels> {
  const image = await decodeImage(new Uint8Array(readFileSync(join(IMAGES, name))), name, { exif_transpose });
  const { files } = JSON.parse(gunzipSync(readFileSync(join(DATA, "image_files.json.gz"))).toString()) as {
    files: Record<string, { pixels?: string }>;
  };
  const { pixels } = files[name];
  return pixels && !exif_transpose ? { ...image, data: Buffer.from(pixels, "base64") } : image;
}

/** Image sources of a page: the name of a file, and an expression that creates an image from it. */
const KINDS: readonly (readonly [what: string, file: string, expression: string])[] = [
  ["a URL of the page's own", "rgba.png", `"/rgba.png"`],
  ["a URL seen from the page", "rgba.png", `"rgba.png?size=large"`],
  ["a URL object", "rgba.png", `new URL("/rgba.png", location.href)`],
  ["a blob: URL", "rgba.png", `URL.createObjectURL(new Blob([await bytes("rgba.png")]))`],
  ["a data: URL", "rgba.png", `await dataUrl("rgba.png")`],
  ["a File", "rgba.png", `new File([await bytes("rgba.png")], "a.png")`],
  ["a Response", "rgba.png", `await fetch("rgba.png")`],
  ["an ArrayBuffer", "rgba.png", `(await bytes("rgba.png")).buffer`],
  ["the files of an <input>", "rgba.png", `fileList(new File([await bytes("rgba.png")], "a.png"))`],
  ["an <img>", "rgba.png", `await img("rgba.png")`],
  ["an <img> with a colour profile", "profile.png", `await img("profile.png")`],
  ["an <img> that its file turns", "exif_6.jpg", `await img("exif_6.jpg")`],
  ["an <img> with a data: URL", "exif_6.png", `await img(await dataUrl("exif_6.png"))`],
  ["an <img> that is still loading", "444.jpg", `Object.assign(new Image(), { src: "444.jpg?slow" })`],
  ["an ImageBitmap of its own numbers", "rgba.png", `await createImageBitmap(await blob("rgba.png"), stored)`],
  ["an ImageBitmap", "rgb.png", `await createImageBitmap(await blob("rgb.png"))`],
  ["a canvas", "rgb.png", `draw(await img("rgb.png"))`],
  ["an OffscreenCanvas", "rgb.png", `draw(await img("rgb.png"), new OffscreenCanvas(1, 1))`],
  ["ImageData", "rgb.png", `pixelsOf(draw(await img("rgb.png")))`],
  ["a VideoFrame", "rgb.png", `new VideoFrame(draw(await img("rgb.png")), { timestamp: 0 })`],
  ["a canvas of another window", "rgb.png", `draw(await img("rgb.png"), frame().document.createElement("canvas"))`],
];

/** Expressions for the images above. */
const HELPERS = `
  const stored = { premultiplyAlpha: "none", colorSpaceConversion: "none" };
  const blob = async (name) => new Blob([await bytes(name)]);
  const dataUrl = async (name) => "data:;base64," + btoa(String.fromCharCode(...await bytes(name)));
  const fileList = (file) => { const list = new DataTransfer(); list.items.add(file); return list.files; };
  const pixelsOf = (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const frame = () => document.body.appendChild(document.createElement("iframe")).contentWindow;
`;
const inPage = (body: string) => `(async () => { ${HELPERS} ${body} })()`;

/** Refused images, and their errors. */
const REFUSALS: readonly (readonly [expression: string, message: RegExp])[] = [
  [`"/none.png"`, /^IMAGE_NOT_FOUND: http:\/\/localhost:\d+\/none\.png: .* 404/],
  [`"file:///etc/passwd"`, /^IMAGE_SOURCE: .*"file:" URLs\n.*input type=file/s],
  [`"/none.tif"`, /^IMAGE_FORMAT: .*TIFF file, which browsers do not decode/],
  [`"/"`, /^IMAGE_FORMAT: .*a web page/],
  [`"blob:" + location.origin + "/1234"`, /^IMAGE_NOT_FOUND: image 0: .*revoked/],
  [`other + "/rgb.png"`, /^HTTP_UNREACHABLE: http:\/\/localhost:\d+\/rgb\.png: the server cannot be reached/],
  [`await img(other + "/rgb.png")`, /^IMAGE_SOURCE: image 0: the <img> shows an image of another site.*crossOrigin/s],
  [`draw(await img(other + "/rgb.png"))`, /^IMAGE_SOURCE: image 0: the canvas shows an image of another site/],
  [`new Image()`, /^BAD_PIXELS: image 0: the <img> cannot be loaded/],
  [`Object.assign(new Image(), { src: "/none.png" })`, /^BAD_PIXELS: image 0: the <img> cannot be loaded/],
  [`document.createElement("video")`, /^BAD_PIXELS: image 0: the <video> has no frame yet; .*loadeddata/],
  [`new OffscreenCanvas(0, 7)`, /^BAD_PIXELS: image 0: the canvas has no pixels/],
  [`closed(await createImageBitmap(new ImageData(2, 2)))`, /^BAD_PIXELS: image 0: the ImageBitmap is closed/],
  [`document.body`, /^BAD_PIXELS: image 0 cannot be HTMLBodyElement/],
  [`fetch("rgb.png")`, /^BAD_PIXELS: image 0 cannot be Promise.*await/s],
];

/** Serves the golden images, the library and a checkpoint; any path but those is 404. */
async function serve(script: string): Promise<{ server: Server; url: string }> {
  const server = createServer((request, response) => {
    const path = (request.url ?? "").replace(/\?.*/, "");
    const send = (type: string, body: string | Buffer) => response.writeHead(200, { "content-type": type }).end(body);
    if (path === "/") return send("text/html", PAGE);
    if (path === "/lib.js") return send("text/javascript", script);
    if (request.url?.endsWith("?slow")) {
      return setTimeout(() => send("image/jpeg", readFileSync(join(IMAGES, path))), 200);
    }
    const folder = path.startsWith("/checkpoint/") ? join(EMBEDDED, "..") : IMAGES;
    try {
      send("application/octet-stream", readFileSync(join(folder, path)));
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise<void>((listening) => server.listen(0, "localhost", listening));
  return { server, url: `http://localhost:${(server.address() as AddressInfo).port}` };
}

/** @param expect reports failures @throws Error if the page does not start */
export async function checkImages(browser: Chromium, expect: (holds: boolean, what: string) => void): Promise<void> {
  const bundle = { bundle: true, platform: "browser", format: "esm", target: "es2022", write: false } as const;
  const { outputFiles } = await build({ ...bundle, entryPoints: [ENTRY], logLevel: "silent" });
  const [here, other] = [await serve(outputFiles[0].text), await serve("")];
  try {
    await browser.send("Page.navigate", { url: here.url });
    await browser.until("window.ready");

    const names = readdirSync(IMAGES).filter((name) => !name.endsWith(".tif"));
    const check = async (what: string, expected: Pixels, body: string, most: number) => {
      try {
        const found = difference(await browser.evaluate<Pixels>(inPage(body)), expected);
        expect(found <= most, `${what} comes to Pillow's pixels, not to others that differ by ${found}`);
      } catch (error) {
        expect(false, `${what} comes to pixels, not to: ${(error as Error).message}`);
      }
    };
    for (const name of names) {
      const most = DIFFERENCES.find(([pattern]) => pattern.test(name))?.[1] ?? 0;
      await check(name, await pillow(name), `return rgb(await bytes("${name}"))`, most);
    }
    for (const name of ["exif_6.jpg", "exif_5.jpg", "exif_6.png", "exif_6.avif", "exif_5.avif"]) {
      const body = `return rgb(await bytes("${name}"), { exif_transpose: true })`;
      await check(`${name} with exif_transpose`, await pillow(name, true), body, name.endsWith(".avif") ? 1 : 0);
    }
    for (const [what, file, expression] of KINDS) {
      await check(what, await pillow(file), `return rgb(${expression})`, 0);
    }

    // A canvas premultiplies by alpha, with a loss: compare with the file that the canvas exports.
    const sameAsFile = await browser.evaluate<Pixels[]>(
      inPage(`const canvas = draw(await img("rgba.png"));
        const file = await new Promise((done) => canvas.toBlob(done));
        const bitmap = await createImageBitmap(await blob("rgba.png"));
        return [await rgb(file), await rgb(canvas), await rgb(pixelsOf(canvas)), await rgb(bitmap)]`),
    );
    for (const [i, what] of ["a canvas with alpha", "its ImageData", "an ImageBitmap with alpha"].entries()) {
      expect(difference(sameAsFile[0], sameAsFile[i + 1]) === 0, `${what} is as its PNG file`);
    }

    const colours = await browser.evaluate<{ webgl: Pixels; video: Pixels; before: Pixels; bitmapLives: boolean }>(
      inPage(`const canvas = document.createElement("canvas");
        canvas.width = canvas.height = 64;
        const gl = canvas.getContext("webgl2");
        gl.clearColor(0.2, 0.4, 0.6, 1);
        gl.clear(gl.COLOR_BUFFER_BIT);
        const webgl = await rgb(canvas);
        const plain = document.createElement("canvas");
        plain.width = plain.height = 64;
        const context = plain.getContext("2d");
        const paint = (colour) => { context.fillStyle = colour; context.fillRect(0, 0, 64, 64); };
        paint("rgb(200, 100, 50)");
        const video = Object.assign(document.createElement("video"), { muted: true, srcObject: plain.captureStream() });
        const painting = setInterval(() => paint("rgb(200, 100, 50)"), 20);
        const loaded = new Promise((done) => (video.onloadeddata = done));
        await video.play();
        await loaded;
        const film = await rgb(video);
        clearInterval(painting);
        paint("rgb(1, 2, 3)");
        const early = rgb(plain);
        paint("white");
        const bitmap = await createImageBitmap(plain);
        await rgb(bitmap);
        return { webgl, video: film, before: await early, bitmapLives: bitmap.width === 64 };`),
    );
    const solid = (...colour: number[]) => ({
      width: 64,
      height: 64,
      data: Array.from({ length: 3 * 64 * 64 }, (_, i) => colour[i % 3]),
    });
    expect(difference(colours.webgl, solid(51, 102, 153)) === 0, "a WebGL canvas comes to its pixels");
    expect(difference(colours.video, solid(200, 100, 50)) <= 3, "a <video> comes to the frame it shows");
    expect(difference(colours.before, solid(1, 2, 3)) === 0, "a canvas is seen as it was at the call");
    expect(colours.bitmapLives, "an ImageBitmap that was given is not closed");

    for (const [expression, message] of REFUSALS) {
      const body = `const other = "${other.url}"; const closed = (bitmap) => (bitmap.close(), bitmap);
        return refusal(${expression})`;
      const said = await browser.evaluate<string>(inPage(body)).catch((error: Error) => error.message);
      expect(message.test(said), `${expression} is refused with ${message}, not: ${said}`);
    }
    console.log(`images        ${names.length} files and ${KINDS.length + 5} other kinds come to Pillow's pixels`);
  } finally {
    for (const { server } of [here, other]) {
      server.close();
      server.closeAllConnections();
    }
  }
}
