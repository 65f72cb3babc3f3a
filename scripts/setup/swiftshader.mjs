/** Installs SwiftShader, without root: unpacked into a cache folder that only this project uses. */

import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { IN_REPOSITORY, ROOT, readJson, runNpm, SetupError, say } from "./process.mjs";

export const CAN_RUN_SWIFTSHADER = process.platform === "linux" && process.arch === "x64";

/** The regular files of a tar archive, `[{ name, data }]`; throws on a damaged one. */
export function untar(archive) {
  const files = [];
  let offset = 0;
  while (offset + 512 <= archive.length) {
    const header = archive.subarray(offset, offset + 512);
    if (header[0] === 0) return files; // A zero block ends the archive.
    const text = (from, to) => header.toString("latin1", from, to).replace(/\0.*$/s, "");
    const number = (from, to) => Number.parseInt(text(from, to).trim(), 8);
    // The checksum field itself counts as spaces.
    const sum = header.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 32 : byte), 0);
    const size = number(124, 136);
    const start = offset + 512;
    if (sum !== number(148, 156)) throw new Error(`damaged tar header at byte ${offset}`);
    const type = text(156, 157);
    if (type === "0" || type === "") files.push({ name: text(0, 100), data: archive.subarray(start, start + size) });
    offset = start + Math.ceil(size / 512) * 512;
  }
  throw new Error("the tar archive ends too early");
}

/** The npm package that has SwiftShader, as package-lock.json has it. */
export const SWIFTSHADER = {
  package: "@sparticuz/chromium@147.0.0",
  integrity: "sha512-4ZKeAQQa8up2mt675qSitztLdbQrlf8BKdC5naeap+5Mv1OV1OlJdPoU+EJC/p5sQUJUQmN4r+q5+EhaaOUHpQ==",
};

/** swiftshader.tar.br: of a package that `npm ci` has installed, else out of one that is downloaded for it. */
export async function swiftShaderArchive() {
  const file = "bin/swiftshader.tar.br";
  if (IN_REPOSITORY) return fs.readFileSync(join(ROOT, "node_modules/@sparticuz/chromium", file));
  say(`downloading SwiftShader, a software driver (npm pack ${SWIFTSHADER.package}, 66 MB) …`);
  const folder = fs.mkdtempSync(join(tmpdir(), "instructblip-setup-"));
  try {
    const result = await runNpm(["pack", SWIFTSHADER.package, "--ignore-scripts", "--pack-destination", folder]);
    const [name] = fs.readdirSync(folder).filter((entry) => entry.endsWith(".tgz"));
    if (result.code !== 0 || name === undefined) {
      process.stderr.write(result.output.trimEnd() + "\n");
      throw new SetupError("npm pack failed, its output is above: check the network and npm's settings");
    }
    const tarball = fs.readFileSync(join(folder, name));
    if (`sha512-${createHash("sha512").update(tarball).digest("base64")}` !== SWIFTSHADER.integrity) {
      throw new SetupError(`${SWIFTSHADER.package}: what was downloaded has another checksum than it must have`);
    }
    return untar(gunzipSync(tarball)).find((entry) => entry.name === `package/${file}`).data;
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * Unpacks SwiftShader and its Vulkan loader into `folder`, atomically; an older one is replaced. It includes a copy of Dawn,
 * with SwiftShader beside it under the loader's name, where Dawn looks first: see src/tensor/device/gpu.node.ts. `archive`:
 * the bytes of a brotli-compressed tar.
 */
export function unpackSwiftShader(archive, folder) {
  const needed = ["libvk_swiftshader.so", "libvulkan.so.1"];
  const files = untar(brotliDecompressSync(archive));
  let temporary;
  try {
    fs.mkdirSync(dirname(folder), { recursive: true });
    temporary = fs.mkdtempSync(`${folder}.`);
    fs.chmodSync(temporary, 0o755);
    for (const name of needed) {
      const file = files.find((entry) => entry.name === name);
      if (!file) throw new SetupError(`SwiftShader's archive lacks ${name}`);
      fs.writeFileSync(join(temporary, name), file.data);
    }
    // A path with a slash is relative to this file.
    const ICD = { library_path: `./${needed[0]}`, api_version: "1.0.5" };
    const manifest = JSON.stringify({ file_format_version: "1.0.0", ICD });
    fs.writeFileSync(join(temporary, "vk_swiftshader_icd.json"), manifest);
    const webgpu = createRequire(import.meta.url).resolve("webgpu/package.json");
    const dawn = join(temporary, `dawn-${readJson(webgpu).version}`);
    fs.mkdirSync(dawn);
    const binary = join(dirname(webgpu), `dist/${process.platform}-${process.arch}/dawn.node`);
    fs.copyFileSync(binary, join(dawn, "dawn.node"));
    fs.symlinkSync(`../${needed[0]}`, join(dawn, needed[1]));
    fs.rmSync(folder, { recursive: true, force: true });
    fs.renameSync(temporary, folder);
  } catch (error) {
    if (temporary) fs.rmSync(temporary, { recursive: true, force: true });
    if (!error.code) throw error;
    throw new SetupError(
      `SwiftShader cannot be unpacked: ${error.message}\n    remedy: name a folder that can be written in INSTRUCTBLIP_CACHE`,
    );
  }
}
