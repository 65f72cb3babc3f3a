/**
 * The lock of an `--out`: a file beside it, OUT.lock, that names the process which writes OUT, so that a second process is
 * refused and lines do not mix. It is created by open(O_EXCL), which is atomic on local disks and on NFS from version 3 on;
 * locks of the system (flock, fcntl) are not in Node, and on many clusters' file systems they hold within one machine only.
 *
 * A killed process leaves its lock. Where its process can be looked up, on the same machine, the lock is taken over at once.
 * From elsewhere (another machine, another container) nothing can be looked up: the owner of a lock renews it, and one that
 * is seen not to change for some time is taken over. A process that was suspended for longer finds its lock gone, and ends.
 *
 * Two processes that take over the same lock at the same moment are told apart unless one is suspended between two calls.
 */
import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, link, open, readFile, readlink, realpath, rename, rm, utimes } from "node:fs/promises";
import { hostname } from "node:os";
import { resolve } from "node:path";
import { performance } from "node:perf_hooks";
import { InputError } from "../../../tensor/errors.ts";
import { pause } from "../../../tensor/files/fetch_limited.ts";
import { systemReason } from "../../../tensor/files/system_error.ts";
import { bounded } from "../../../tensor/shown.ts";
import { isObject } from "../../evaluation/task.ts";

/** How often an owner renews its lock. */
const RENEWAL_MS = 5000;
/** A lock from elsewhere that does not change for so long is of a process that has ended. */
const STALE_MS = 30_000;
const LOOK_MS = 1000;
/** Errors of folders in which no lock can be made, although OUT can be written. */
const NO_LOCKS = ["EACCES", "EPERM", "EROFS", "ENOTSUP", "ENOSYS"];

/** What a lock says. */
interface Owner {
  readonly pid: number;
  readonly host: string;
  /** Within which a pid is of one process: the boot of a machine and the namespace of a container, else the host. */
  readonly system: string;
  /** When the process began, which another of the same pid did not; null if the system does not tell. */
  readonly started: string | null;
  /** Of this lock alone. */
  readonly token: string;
}

/** A lock as it was found. */
interface Found {
  /** Not so a folder, a link or a pipe of the lock's name. */
  readonly isFile: boolean;
  readonly text: string;
  /** Changes when it is renewed or replaced. */
  readonly version: string;
}

export interface LockOptions {
  readonly signal: AbortSignal;
  /** Told why there is a wait, or no lock. */
  readonly say: (message: string) => void;
  /** For tests. Default: those above. */
  readonly times?: { readonly renewal: number; readonly stale: number; readonly look: number } | undefined;
}

export class OutLock {
  readonly #name: string;
  readonly #path: string;
  /** What its file says, and no other's. */
  readonly #text: string;
  readonly #renewal: number;
  readonly #timer: ReturnType<typeof setInterval>;
  #renewed = clocks();
  #renewing: Promise<void> | undefined;
  #lost: InputError | undefined;

  private constructor(name: string, path: string, text: string, renewal: number) {
    this.#name = name;
    this.#path = path;
    this.#text = text;
    this.#renewal = renewal;
    this.#timer = setInterval(() => this.#renew(), renewal);
    this.#timer.unref();
  }

  /**
   * Locks the file `out`; undefined where no lock can be made.
   *
   * @param name of the file, for messages
   * @throws InputError OUT_LOCKED, IO; the signal's reason
   */
  static async take(out: string, name: string, options: LockOptions): Promise<OutLock | undefined> {
    const { renewal = RENEWAL_MS } = options.times ?? {};
    const path = `${await realpath(out).catch(() => resolve(out))}.lock`;
    const system = await systemOf();
    const here = { pid: process.pid, host: hostname(), system, started: await startOf(process.pid) };
    const text = `${JSON.stringify({ ...here, token: randomUUID() } satisfies Owner)}\n`;
    for (;;) {
      options.signal.throwIfAborted();
      try {
        await create(path, text);
        return new OutLock(name, path, text, renewal);
      } catch (cause) {
        const { code = "" } = cause as NodeJS.ErrnoException;
        if (NO_LOCKS.includes(code)) {
          options.say(
            `warning: ${name}: no lock can be made beside it (${systemReason(cause)}): let no other process write it`,
          );
          return undefined;
        }
        if (code !== "EEXIST") throw cause;
      }
      const found = await read(path);
      if (!found) continue; // removed in between
      await expectEnded(found, path, name, system, options);
      await remove(path, found);
    }
  }

  /** Before each write. @throws InputError OUT_LOCKED if another process has taken the lock over */
  async check(): Promise<void> {
    // After a suspension the timer may not have run yet.
    if (elapsed(this.#renewed) > 2 * this.#renewal) await this.#renew();
    if (this.#lost) throw this.#lost;
  }

  async release(): Promise<void> {
    clearInterval(this.#timer);
    await this.#renewing;
    const found = await read(this.#path).catch(() => undefined);
    if (found?.text === this.#text) await rm(this.#path, { force: true });
  }

  /** One renewal at a time: another would see a lock that is being made. */
  #renew(): Promise<void> {
    this.#renewing ??= this.#renewOnce().finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  /** Renews the lock, and sees whether it is still this one's. A file system that refuses is asked again later. */
  async #renewOnce(): Promise<void> {
    try {
      const found = await read(this.#path);
      if (!found) await create(this.#path, this.#text);
      else if (found.text === this.#text) {
        const now = new Date();
        await utimes(this.#path, now, now);
      } else this.#lost = lockedBy(this.#name, this.#path, ownerOf(found), "has taken it over");
      this.#renewed = clocks();
    } catch {}
  }
}

/** The wall clock may be set back, and the other does not count a machine's suspension. */
const clocks = (): readonly number[] => [Date.now(), performance.now()];

/** Milliseconds by the clock that counted more. */
const elapsed = (since: readonly number[]) => Math.max(...clocks().map((now, i) => now - since[i]!));

/** Waits until it is known that the owner of a lock has ended. @throws InputError OUT_LOCKED if it has not */
async function expectEnded(
  found: Found,
  path: string,
  name: string,
  system: string,
  options: LockOptions,
): Promise<void> {
  const { look = LOOK_MS, stale = STALE_MS } = options.times ?? {};
  const owner = ownerOf(found);
  if (!found.isFile || (!owner && found.text.trim() !== "")) {
    throw new InputError("OUT_LOCKED", `${name}: ${bounded(path, 300)} is there, and is not a lock of this program`);
  }
  // Without a word in it a lock is of a process that was making or has just made it.
  const isHere = owner?.system === system;
  if (isHere && (await isRunning(owner))) throw lockedBy(name, path, owner, "is writing it");
  if (isHere) return;
  const who = owner ? describe(owner) : "a process";
  options.say(`note: ${name}: ${who} was writing it; waiting up to ${stale / 1000} s to see whether it still is`);
  // By no clock: one may be set, and on a machine that was suspended it tells of time in which the owner was not looked at.
  for (let looked = 0; looked < stale; looked += look) {
    await pause(look, options.signal);
    const now = await read(path);
    if (!now) return;
    if (now.text !== found.text || now.version !== found.version)
      throw lockedBy(name, path, ownerOf(now), "is writing it");
  }
}

/** Removes the lock that was found, and no other: by a name of its own, which one process can give it. */
async function remove(path: string, { text }: Found): Promise<void> {
  const aside = `${path}.${randomUUID()}`;
  try {
    await rename(path, aside);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return; // another process was faster
    throw cause;
  }
  const moved = await read(aside);
  // Another process has taken over and locked again in between: its lock is given back.
  if (moved && moved.text !== text) await link(aside, path).catch(() => {});
  await rm(aside, { force: true });
}

/** @throws EEXIST */
async function create(path: string, text: string): Promise<void> {
  const handle = await open(path, "wx");
  try {
    await handle.writeFile(text);
  } catch (cause) {
    await rm(path, { force: true }); // as on a full disk
    throw cause;
  } finally {
    await handle.close();
  }
}

// So as not to wait for the writer of a pipe, nor to take a link without a target for no file; Windows has no such flags.
const READ = constants.O_RDONLY | (constants.O_NONBLOCK ?? 0) | (constants.O_NOFOLLOW ?? 0);
/** Errors of opening what is no file: a link, a socket, on Windows a folder. */
const NO_FILES = ["ELOOP", "ENXIO", "EISDIR"];

/** By opening it, as NFS tells then what other machines have done. */
async function read(path: string): Promise<Found | undefined> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path, READ);
    const stat = await handle.stat({ bigint: true });
    const isFile = stat.isFile();
    const text = isFile ? await handle.readFile("utf8") : "";
    return { isFile, text, version: `${stat.ino}-${stat.mtimeNs}` };
  } catch (cause) {
    const { code = "" } = cause as NodeJS.ErrnoException;
    if (["ENOENT", "ESTALE"].includes(code)) return undefined;
    if (NO_FILES.includes(code)) return { isFile: false, text: "", version: code };
    throw cause;
  } finally {
    await handle?.close();
  }
}

function ownerOf(found: Found | undefined): Owner | undefined {
  try {
    const value: unknown = JSON.parse(found?.text ?? "");
    if (!isObject(value)) return undefined;
    const { pid, host, system, started, token } = value as Partial<Record<keyof Owner, unknown>>;
    const isOne = Number.isSafeInteger(pid) && (pid as number) > 0 && [host, system, token].every(isText);
    return isOne && (started === null || isText(started)) ? (value as unknown as Owner) : undefined;
  } catch {
    return undefined;
  }
}

const isText = (value: unknown) => typeof value === "string";

const describe = ({ pid, host }: Owner) => `process ${pid} on ${bounded(host, 100)}`;

function lockedBy(name: string, path: string, owner: Owner | undefined, does: string): InputError {
  return new InputError("OUT_LOCKED", `${name}: ${owner ? describe(owner) : "another process"} ${does}`, {
    hint: `each process needs an --out of its own; if none is running, remove ${bounded(path, 300)}`,
  });
}

/** Whether the process that made a lock on this system still runs. */
async function isRunning({ pid, started }: Owner): Promise<boolean> {
  try {
    process.kill(pid, 0); // sends nothing
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false; // EPERM: it runs, as another user's
  }
  const now = await startOf(pid);
  return now === null || started === null ? now !== ENDED : now === started;
}

/** Of a killed process whose parent has not asked for its exit code. */
const ENDED = "ended";

/** When a process began, in the system's own units; null if the system does not tell. Linux: proc(5), /proc/pid/stat. */
async function startOf(pid: number): Promise<string | null> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  // Its second field is a name in parentheses, which may have any characters.
  const [state, ...rest] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  if (state === "Z" || state === "X") return ENDED;
  return rest[18] ?? null;
}

async function systemOf(): Promise<string> {
  try {
    const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
    return `${boot} ${await readlink("/proc/self/ns/pid")}`;
  } catch {
    return hostname();
  }
}
