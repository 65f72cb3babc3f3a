/** Locks of --out: who is refused, whose lock is taken over, and what its former owner is told. */
import { execFileSync } from "node:child_process";
import {
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { OutFile } from "../../../src/instructblip/cli/requests/out_file.node.ts";
import { OutLock } from "../../../src/instructblip/cli/requests/out_lock.node.ts";
import type { Terminal } from "../../../src/instructblip/cli/terminal.node.ts";
import { temporaryFolder } from "../../temporary.ts";

/** Another machine's, of which nothing can be looked up. */
const ELSEWHERE = { pid: 7, host: "node7", system: "another boot", started: "1", token: "a" };

let out: string;
let lockFile: string;
let said: string[];
beforeEach(() => {
  out = join(temporaryFolder(), "out.jsonl");
  lockFile = `${out}.lock`;
  said = [];
});
afterEach(() => vi.restoreAllMocks());

const take = (times = { renewal: 10_000, stale: 40, look: 5 }, signal = new AbortController().signal) =>
  OutLock.take(out, "--out out.jsonl", { signal, say: (message) => said.push(message), times });
const leave = (owner: object) => writeFileSync(lockFile, `${JSON.stringify(owner)}\n`);
/** A lock as this process makes it. */
async function ownLock(): Promise<typeof ELSEWHERE> {
  const lock = await take();
  const owner = JSON.parse(readFileSync(lockFile, "utf8"));
  await lock!.release();
  return owner;
}
const held = { code: "OUT_LOCKED", hint: expect.stringContaining(".lock") };

test("of two processes one is refused, by the other's name, until it has ended", async () => {
  const first = await take();
  await expect(take()).rejects.toMatchObject({
    ...held,
    message: expect.stringContaining(`out.jsonl: process ${process.pid} on ${hostname()} is writing it`),
  });
  await first!.check();
  await first!.release();
  expect(existsSync(lockFile)).toBe(false);
  await (await take())!.release();
  expect(said).toEqual([]);
});

test("a link to the file is the file", async () => {
  writeFileSync(out, "");
  const first = await take();
  const link = join(temporaryFolder(), "link.jsonl");
  symlinkSync(out, link);
  out = link;
  await expect(take()).rejects.toMatchObject(held);
  await first!.release();
});

describe("taken over at once is the lock of", () => {
  test("a process of this machine that is gone, also if its pid is another's now", async () => {
    const own = await ownLock();
    for (const ended of [
      { ...own, pid: 2 ** 22 + 1 }, // above Linux's largest
      ...(own.started === null ? [] : [{ ...own, started: "1" }]),
    ]) {
      leave(ended);
      const lock = await take();
      expect(JSON.parse(readFileSync(lockFile, "utf8"))).toMatchObject({ pid: process.pid, started: own.started });
      await lock!.release();
    }
    expect(said).toEqual([]);
  });

  test("nobody that is elsewhere, before it has not been renewed for some time", async () => {
    leave(ELSEWHERE);
    const lock = await take();
    expect(said).toEqual([expect.stringContaining("process 7 on node7 was writing it; waiting up to 0.04 s")]);
    await lock!.release();
    writeFileSync(lockFile, ""); // of a process that was killed as it made the lock
    await (await take())!.release();
  });
});

test("a lock that is renewed elsewhere is not taken over", async () => {
  leave(ELSEWHERE);
  let seconds = 1;
  const renewing = setInterval(() => utimesSync(lockFile, seconds, seconds++), 5);
  await expect(take({ renewal: 10_000, stale: 5000, look: 5 })).rejects.toThrow("process 7 on node7 is writing it");
  clearInterval(renewing);
  expect(JSON.parse(readFileSync(lockFile, "utf8"))).toEqual(ELSEWHERE);
});

test("a clock that is set forward takes no lock from its owner", async () => {
  leave(ELSEWHERE);
  let now = Date.now();
  vi.spyOn(Date, "now").mockImplementation(() => {
    now += 60_000;
    return now;
  });
  let seconds = 1;
  const renewing = setInterval(() => utimesSync(lockFile, seconds, seconds++), 5);
  try {
    const times = { renewal: 10_000, stale: 5000, look: 5 };
    await expect(take(times)).rejects.toThrow("process 7 on node7 is writing it");
  } finally {
    clearInterval(renewing);
  }
});

test.each([
  { clock: "the wall clock is set back", wall: -3_600_000, steady: 60_000 },
  { clock: "the machine was suspended", wall: 60_000, steady: 0 },
])("an owner whose timer has not run looks before it writes, also if $clock", async ({ wall, steady }) => {
  const lock = (await take())!;
  leave(ELSEWHERE);
  await lock.check();
  const [date, time] = [Date.now(), performance.now()];
  vi.spyOn(Date, "now").mockReturnValue(date + wall);
  vi.spyOn(performance, "now").mockReturnValue(time + steady);
  await expect(lock.check()).rejects.toThrow("process 7 on node7 has taken it over");
  await lock.release();
});

test("an owner renews its lock, makes it again if somebody removed it, and is told if another has it", async () => {
  const lock = (await take({ renewal: 1, stale: 40, look: 5 }))!;
  const moment = () => new Promise((resolve) => setTimeout(resolve, 1));
  const text = readFileSync(lockFile, "utf8");
  utimesSync(lockFile, 1, 1);
  while (statSync(lockFile).mtimeMs < 2000) await moment();
  rmSync(lockFile);
  while (!existsSync(lockFile) || readFileSync(lockFile, "utf8") !== text) await moment();
  await lock.check();
  leave(ELSEWHERE);
  const use = async () => {
    for (;;) await lock.check().then(moment);
  };
  const message = expect.stringContaining("process 7 on node7 has taken it over");
  await expect(use()).rejects.toMatchObject({ ...held, message });
  await lock.release();
  expect(JSON.parse(readFileSync(lockFile, "utf8"))).toEqual(ELSEWHERE);
});

test("a file that is no lock is left alone, and a wait can be interrupted", async () => {
  leave({ lockfileVersion: 3 });
  await expect(take()).rejects.toMatchObject({ code: "OUT_LOCKED", message: expect.stringContaining("is not a lock") });
  leave(ELSEWHERE);
  const waiting = { renewal: 10_000, stale: 10_000, look: 10_000 };
  await expect(take(waiting, AbortSignal.timeout(5))).rejects.toThrow(/timeout/);
  expect(existsSync(lockFile)).toBe(true);
});

test.each([
  { what: "a folder", make: () => mkdirSync(lockFile) },
  { what: "a link without a target", make: () => symlinkSync("nowhere", lockFile) },
  { what: "a pipe", make: () => execFileSync("mkfifo", [lockFile]) },
])("$what of the lock's name is no lock, and nobody waits for it", async ({ make }) => {
  make();
  await expect(take()).rejects.toMatchObject({ code: "OUT_LOCKED", message: expect.stringContaining("is not a lock") });
  expect(said).toEqual([]);
});

test.runIf(process.platform === "linux")("a folder that takes no lock is warned about", async () => {
  out = "/sys/kernel/out.jsonl"; // of which nobody may make files, root included
  expect(await take()).toBeUndefined();
  expect(said).toEqual([
    expect.stringMatching(/^warning: .*no lock can be made beside it \((no permission|the disk is read-only)\)/),
  ]);
});

describe("while a process waits, the owner elsewhere", () => {
  const replace = (text: string) => {
    writeFileSync(`${out}.new`, text);
    renameSync(`${out}.new`, out);
  };
  test.each([
    { does: "replaces the file", act: () => replace("one\ntwo\n"), read: ["one", "two"], written: "one\ntwo\nthree\n" },
    { does: "removes the file", act: () => rmSync(out), read: [], written: "three\n" },
  ])("$does: what is read and written is the file of that name", async ({ act, read, written }) => {
    writeFileSync(out, "one\n");
    leave(ELSEWHERE);
    const terminal = {
      err: () => {
        act();
        rmSync(lockFile);
      },
    } as unknown as Terminal;
    const lines: string[] = [];
    const run = { terminal, signal: new AbortController().signal };
    const times = { renewal: 10_000, stale: 5000, look: 5 };
    const file = await OutFile.open(out, true, (line) => lines.push(line), run, times);
    expect(lines).toEqual(read);
    await file.write("three\n");
    await file.close();
    expect(readFileSync(out, "utf8")).toBe(written);
  });
});

test("a file of several names is warned about, as each has a lock of its own", async () => {
  writeFileSync(out, "one\n");
  const terminal = { err: (text: string) => said.push(text) } as unknown as Terminal;
  const run = { terminal, signal: new AbortController().signal };
  const open = () => OutFile.open(out, true, () => {}, run);
  await (await open()).close();
  expect(said).toEqual([]);
  linkSync(out, `${out}.link`);
  await (await open()).close();
  expect(said).toEqual([expect.stringMatching(/^warning: .*other names \(hard links\)/)]);
});
