/** `merge --requests`: the answers of all shards as a single run writes them. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { EXIT } from "../../../src/instructblip/cli/format.ts";
import { temporaryFolder } from "../../temporary.ts";
import { writeDataSets } from "../data/data_sets.ts";
import { cli } from "./cli.ts";

/** What `generate` writes for a request, of text that is not ASCII. */
const answer = (id: unknown) => ({ id, sequences: [[1, 2]], text: [`ä ${id}`] });
const failure = (id: unknown) => ({ id, error: { code: "NOT_FOUND", message: "no such file" } });
const text = (lines: readonly unknown[]) => lines.map((line) => `${JSON.stringify(line)}\n`).join("");

let folder: string;
beforeEach(() => {
  folder = temporaryFolder();
});

function file(name: string, content: string): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}
const requests = (ids: readonly unknown[]) => file("requests.jsonl", text(ids.map((id) => ({ id }))));
const merge = (asked: string, parts: readonly string[]) => cli(["merge", "--requests", asked, ...parts]);

describe("merge --requests", () => {
  it.each([1, 2, 3, 7, 9])("gives the lines of an undivided run, of %i shards", async (n) => {
    const ids = ["a", 7, "7", "ü", 0.5, "", "z"];
    const asked = requests(ids);
    const parts = Array.from({ length: n }, (_, i) =>
      file(
        `part-${i}.jsonl`,
        text(
          ids
            .filter((_, k) => k % n === i)
            .map(answer)
            .reverse(),
        ),
      ),
    );
    expect(await merge(asked, parts)).toEqual({ code: EXIT.ok, stdout: text(ids.map(answer)), stderr: "" });
  });

  it("has the exit code of a run in which requests failed, among them one that is no request", async () => {
    const asked = file("requests.jsonl", '{"id": "a"}\n\n{\n{"id": "b"}');
    const parts = [file("0", text([answer("a"), failure("b")])), file("1", text([failure(null)]))];
    const stdout = text([answer("a"), failure(null), failure("b")]);
    const stderr = "2 of 3 requests failed; their lines say why\n";
    expect(await merge(asked, parts)).toEqual({ code: EXIT.someFailed, stdout, stderr });
  });

  it.each(["paths.json", "paths.jsonl", "none.parquet", "hub --split train", "shards"])(
    "reads the ids of %s, as generate --requests does",
    async (format) => {
      writeDataSets(folder);
      const [name, ...options] = format.split(" ");
      const rows = JSON.parse(readFileSync(join(folder, "paths.json"), "utf8")) as { id: string }[];
      const ids = rows.map(({ id }) => id);
      const parts = [0, 1].map((i) => file(`part-${i}`, text(ids.filter((_, k) => k % 2 === i).map(answer))));
      const merged = await cli(["merge", "--requests", join(folder, name!), ...options, ...parts]);
      expect(merged).toEqual({ code: EXIT.ok, stdout: text(ids.map(answer)), stderr: "" });
    },
  );

  it("numbers rows without an id, or takes the column that is named", async () => {
    const rows = [
      { image: "a.png", key: "x" },
      { image: "b.png", key: "y" },
    ];
    for (const asked of [file("rows.json", JSON.stringify(rows)), file("rows.jsonl", text(rows))]) {
      expect((await merge(asked, [file("numbers", text([answer(1), answer(0)]))])).stdout).toBe(
        text([answer(0), answer(1)]),
      );
      const named = await cli([
        "merge",
        "--requests",
        asked,
        "--id-column",
        "key",
        file("keys", text([answer("y"), answer("x")])),
      ]);
      expect(named.stdout).toBe(text([answer("x"), answer("y")]));
    }
  });

  it("refuses what is not every request once", async () => {
    const refused = async (asked: string, parts: readonly string[]) => {
      const { code, stdout, stderr } = await merge(asked, parts);
      expect({ code, stdout }).toEqual({ code: EXIT.refused, stdout: "" });
      return stderr;
    };
    const asked = requests(["a", "b", "c"]);
    const [a, b, c] = ["a", "b", "c"].map((id) => file(id, text([answer(id)])));
    expect(await refused(asked, [a, c])).toMatch(
      /1 of 3 requests have no answer, the first is line 2, id "b"\n.*--resume/,
    );
    expect(await refused(asked, [a, b, c, a])).toMatch(/id "a" is answered in \S+a and in \S+a/);
    expect(await refused(requests(["a", "b"]), [a, b, c])).toMatch(/no request of .* has the id "c"/);
    const twice = file("part", text([answer("a"), answer("a")]));
    expect(await refused(requests(["a", "a"]), [twice])).toMatch(/is answered in/);
    expect(await refused(requests(["a", "b", "a"]), [a, b])).toMatch(/line 1 and line 3 have the id "a"/);
    expect(await refused(file("requests.jsonl", "{}\n{}\n"), [a])).toMatch(
      /line 1 and line 2 have no id\n.*concatenated/,
    );
  });

  it("refuses files of something else, cut off, or not there", async () => {
    const asked = requests(["a", "b"]);
    const whole = text([answer("a"), answer("b")]);
    for (const [content, message] of [
      [whole.slice(0, -1), /the last line is not complete/],
      [whole.slice(0, -9), /the last line is not complete\n.*resume the run/],
      ["not JSON", /the last line is not complete/],
      ["not JSON\n", /line 1 is not an answer/],
      ['{"evaluation": {}}\n', /line 1 is not an answer\n.*evaluate --out are merged without --requests/],
      [`${whole}\n`, /line 3 is not an answer/],
    ] as const) {
      const { code, stderr } = await merge(asked, [file("part", content)]);
      expect(code).toBe(EXIT.refused);
      expect(stderr).toMatch(message);
    }
    expect((await merge(asked, [join(folder, "none")])).stderr).toMatch(/none: no such file/);
    expect((await merge(join(folder, "none"), [file("part", whole)])).stderr).toMatch(/none: no such file/);
    expect((await cli(["merge", "--json", "--requests", asked, file("part", whole)])).code).toBe(EXIT.usage);
  });
});
