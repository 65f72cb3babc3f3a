/** What errors of the file system say: of real ones in words, of unknown ones their code. */
import { mkdirSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { systemReason } from "../../../src/tensor/files/system_error.ts";
import { temporaryFolder } from "../../temporary.ts";

test("a real error is said in words", () => {
  const folder = temporaryFolder();
  mkdirSync(join(folder, "sub"));
  writeFileSync(join(folder, "file"), "");
  const reasonOf = (path: string) => {
    try {
      openSync(join(folder, path), "w");
    } catch (error) {
      return systemReason(error);
    }
  };
  expect(reasonOf("none/x")).toBe("no such file or folder");
  expect(reasonOf("sub")).toBe("this is a folder");
  expect(reasonOf("file/x")).toBe("a part of the path is a file, not a folder");
  expect(reasonOf("x".repeat(1000))).toBe("the name is too long");
});

test.each([
  ["ENOSPC", "the disk is full"],
  ["EACCES", "no permission"],
  ["EMFILE", "too many open files"],
  ["EXDEV", "the system reports EXDEV"],
])("%s", (code, reason) => expect(systemReason(Object.assign(new Error(), { code }))).toBe(reason));

test("what is no error of the system speaks for itself", () => {
  expect(systemReason(new Error("something else"))).toBe("something else");
  expect(systemReason("thrown text")).toBe("thrown text");
});
