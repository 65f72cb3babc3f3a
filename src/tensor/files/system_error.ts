/** What the errors of the file system say, in words. */

const REASONS: ReadonlyMap<unknown, string> = new Map([
  ["EACCES", "no permission"],
  ["EPERM", "no permission"],
  ["EDQUOT", "the disk quota is used up"],
  ["EFBIG", "the file is larger than the disk allows"],
  ["EIO", "the disk failed"],
  ["EISDIR", "this is a folder"],
  ["ELOOP", "a loop of symbolic links"],
  ["EMFILE", "too many open files"],
  ["ENFILE", "too many open files"],
  ["ENAMETOOLONG", "the name is too long"],
  ["ENOENT", "no such file or folder"],
  ["ENOSPC", "the disk is full"],
  ["ENOTDIR", "a part of the path is a file, not a folder"],
  ["EROFS", "the disk is read-only"],
  ["ESTALE", "the network folder has changed on its server"],
]);

/** Why the system refused: by the error's code, of a common one in words. */
export function systemReason(error: unknown): string {
  const { code, message } = Object(error) as { code?: unknown; message?: unknown };
  if (code === undefined) return String(message ?? error);
  return REASONS.get(code) ?? `the system reports ${String(code)}`;
}
