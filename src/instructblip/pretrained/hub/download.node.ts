/** Downloads one file of the Hub: resumed, checked against its hash, and safe with concurrent processes. */
import { createHash, randomBytes } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { type FileHandle, open, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { WeightError } from "../../../tensor/errors.ts";
import { pause } from "../../../tensor/files/fetch_limited.ts";
import { publish, systemCode } from "./cache.node.ts";
import type { Blob, Hub } from "./client.node.ts";

/** Attempts without progress, in a row, after which a download is given up. */
const ATTEMPTS = 5;
/** Bytes that an attempt must add to count as progress. */
const WORTH_RETRYING = 2 ** 16;
/** Codes of refusals after which the same request may succeed. */
const FAILED: Readonly<Record<string, string>> = {
  HUB_UNREACHABLE: "the connection broke",
  HUB_BUSY: "the server had no answer but an error",
  HTTP_SLOW: "the connection was too slow",
};
const PASSING = Object.keys(FAILED);

/** Partial files that this process is writing. */
const writing = new Set<string>();

/**
 * Downloads a blob to `blobs/OID`, which only ever holds a whole, checked file.
 *
 * The bytes are written to a file of this process alone, as in huggingface_hub since its pull request 4228: file locks do
 * not work on every network file system. A failed download leaves `OID.incomplete`, which the next one takes by renaming it,
 * so that only one process can.
 */
export async function download(hub: Hub, commit: string, file: string, blob: Blob, blobs: string): Promise<void> {
  const partial = await claim(blobs, blob.oid);
  let keep = true;
  try {
    let resumed = (await stat(partial)).size > 0;
    for (;;) {
      await receive(hub, commit, file, blob, partial);
      if (await isIntact(partial, blob, hub.options.signal)) break;
      await rm(partial);
      // The partial file may be from another download; from here on every byte is ours.
      if (!resumed) {
        keep = false;
        throw new WeightError(
          "INTEGRITY",
          `${hub.id.repository}: ${file}: what arrived does not have the hash that the Hub lists`,
          {
            hint: "damaged on the way, or by a server in between; nothing was kept, try again",
          },
        );
      }
      resumed = false;
    }
    await publish(partial, join(blobs, blob.oid));
  } catch (error) {
    const isEmpty = (await stat(partial).catch(() => undefined))?.size === 0;
    if (keep && !isEmpty) await rename(partial, join(blobs, `${blob.oid}.incomplete`)).catch(() => undefined);
    else await rm(partial, { force: true });
    hub.options.signal?.throwIfAborted();
    throw error;
  } finally {
    writing.delete(partial);
  }
}

/** A partial file for this process: one that no process is writing, or an empty one. */
async function claim(blobs: string, oid: string): Promise<string> {
  const host = hostname()
    .replace(/[^\w-]/g, "_")
    .slice(0, 60);
  const mine = join(blobs, `${oid}.${host}-${process.pid}-${randomBytes(4).toString("hex")}.incomplete`);
  writing.add(mine);
  for (const name of await readdir(blobs)) {
    if (!name.startsWith(`${oid}.`) || !name.endsWith(".incomplete")) continue;
    const [, itsHost, pid] = /^[0-9a-f]+\.([\w-]+)-(\d+)-[0-9a-f]{8}\.incomplete$/.exec(name) ?? [];
    const isReleased = name === `${oid}.incomplete`;
    const isAbandoned = itsHost === host && !isRunning(Number(pid), join(blobs, name));
    if (!isReleased && !isAbandoned) continue;
    const taken = await rename(join(blobs, name), mine).then(
      () => true,
      () => false, // another process was faster
    );
    if (taken) return mine;
  }
  await writeFile(mine, "");
  return mine;
}

/** Whether the process that began a partial file still writes it. */
function isRunning(pid: number, partial: string): boolean {
  if (pid === process.pid) return writing.has(partial); // or it was an earlier process with this id
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) !== "ESRCH";
  }
}

/** Fetches the rest of the partial file, again and again as long as there is progress. */
async function receive(hub: Hub, commit: string, file: string, blob: Blob, partial: string): Promise<void> {
  const { signal, on_download, retryDelayMs = 1000 } = hub.options;
  const handle = await open(partial, constants.O_RDWR | constants.O_CREAT);
  try {
    let loaded = (await handle.stat()).size;
    const report = async (bytes: number) => {
      loaded = bytes;
      await on_download?.({ file, loadedBytes: loaded, totalBytes: blob.size });
    };
    if (loaded > blob.size) {
      await handle.truncate(0);
      loaded = 0;
    }
    await report(loaded);
    let most = loaded;
    for (let failures = 0; loaded < blob.size; ) {
      let cause: unknown;
      try {
        await receiveOnce(hub, commit, file, blob, handle, loaded, report);
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof WeightError && PASSING.includes(error.code))) throw error;
        cause = error;
      }
      if (loaded === blob.size) break;
      // Bytes that are fetched again, from a server that does not resume, are no progress.
      const isWorth = loaded - most >= WORTH_RETRYING;
      failures = isWorth ? 0 : failures + 1;
      most = Math.max(most, loaded);
      if (failures === ATTEMPTS) {
        const code = cause instanceof WeightError ? cause.code : "HUB_UNREACHABLE";
        throw new WeightError(
          code,
          `${hub.id.repository}: ${file}: ${FAILED[code] ?? FAILED.HUB_UNREACHABLE} ${ATTEMPTS} times`,
          {
            hint: `${loaded} of ${blob.size} bytes are kept; the next run resumes there`,
            cause,
          },
        );
      }
      await pause(retryDelayMs * 2 ** Math.max(0, failures - 1), signal);
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * One request: `report` is called with the file's size on disk after each chunk. @throws WeightError of {@link PASSING}, …
 */
async function receiveOnce(
  hub: Hub,
  commit: string,
  file: string,
  blob: Blob,
  handle: FileHandle,
  begin: number,
  report: (loadedBytes: number) => Promise<void>,
): Promise<void> {
  const { response, chunks, end } = await hub.bytes(commit, file, begin);
  try {
    let at = begin;
    // 200 is the whole file again; any other range than the requested one is useless, and 416 has none.
    const range = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "");
    if (begin > 0 && !(response.status === 206 && Number(range?.[1]) === begin)) {
      at = 0;
      await handle.truncate(0);
      await report(0);
      if (response.status !== 200) return;
    }
    for await (const chunk of chunks()) {
      if (chunk.length > blob.size - at) {
        throw new WeightError("INTEGRITY", `${hub.id.repository}: ${file}: the server sends more than the Hub lists`);
      }
      for (let done = 0; done < chunk.length; ) {
        done += (await handle.write(chunk, done, chunk.length - done, at + done)).bytesWritten;
      }
      at += chunk.length;
      await report(at);
    }
  } finally {
    end();
  }
}

/** Whether a file has its blob's hash: SHA-256 for large files (Git LFS), git's SHA-1 of `blob SIZE\0…` for the others. */
async function isIntact(path: string, { oid, size }: Blob, signal: AbortSignal | undefined): Promise<boolean> {
  const hash = createHash(oid.length === 64 ? "sha256" : "sha1");
  if (oid.length === 40) hash.update(`blob ${size}\0`);
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20, signal }))
    hash.update(chunk as Uint8Array);
  return hash.digest("hex") === oid;
}
