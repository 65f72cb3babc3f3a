/** Which of several processes goes on: interleaved where they have the same cases, each alone where they do not. */
import { expect, test } from "vitest";
import { interleave, type PacedSide, type Side } from "../../bench/against.ts";
import { atOnce, type Message, nextTurns, placeAfter, rotated, type Waiting } from "../../bench/pace.ts";
import { row } from "./row.ts";

const side = (name: string): Side => ({ name, folder: "", args: [] });

/** What a process says that measures these sections of cases. */
function* messages(sections: readonly (readonly string[])[], rounds: number): Generator<Message> {
  for (const names of sections) {
    yield { begin: names, rounds };
    for (let round = 0; round < rounds; round++) for (const name of names) yield { round, name };
  }
}

/** Processes that only pretend; `log` has who took which turn. */
function pretenders(sections: Record<string, readonly (readonly string[])[]>, rounds: number) {
  const log: string[] = [];
  const stopped: string[] = [];
  const start = ({ name }: Side, args: readonly string[]): PacedSide => {
    const all = messages(sections[name], rounds);
    let [last, ended] = ["", false];
    return {
      next: async () => {
        if (last) log.push(last);
        const { value, done } = all.next();
        ended = done ?? false;
        last = !value || "begin" in value ? "" : `${name}:${value.name}${value.round}`;
        return value || undefined;
      },
      rows: () => (ended ? [row({ shape: `${name} ${args[1]}` })] : []),
      stop: () => void stopped.push(name),
    };
  };
  return { log, stopped, start };
}

test("processes take the same turn one after another, and none is always first", async () => {
  const { log, stopped, start } = pretenders({ a: [["x", "y"]], b: [["x", "y"]] }, 2);
  const shown: string[] = [];
  const rows = await interleave([side("a"), side("b")], ["f"], 2, start, (text) => shown.push(text));
  expect(log.slice(0, 8).join(" ")).toBe("a:x0 b:x0 b:y0 a:y0 b:x1 a:x1 a:y1 b:y1");
  expect(log.slice(8, 10).join(" ")).toBe("b:x0 a:x0"); // the second run begins with the other
  expect(rows.map((run) => run.map((of) => of.map(({ shape }) => shape)))).toEqual([
    [["a f"], ["b f"]],
    [["a f"], ["b f"]],
  ]);
  expect(stopped.sort().join("")).toBe("aabb");
  expect(shown[0]).toBe("run 1 of 2: starting a");
  expect(shown).toContain("run 1 of 2: round 2 of 2: x, b");
  expect(shown.at(-1)).toMatch(/^run 2 of 2, about \d+ min left: /);
});

test("a case that one side lacks is measured alone, and the rest interleaved", async () => {
  const { log, start } = pretenders({ a: [["x", "y", "z"], ["v"]], b: [["y", "new", "z"]] }, 2);
  await interleave([side("a"), side("b")], [""], 1, start, () => {});
  expect(log.join(" ")).toBe("a:x0 b:y0 a:y0 b:new0 a:z0 b:z0 a:x1 a:y1 b:y1 b:new1 b:z1 a:z1 a:v0 a:v1");
});

test("the same cases in another order, or none, come to an end", async () => {
  const { log, start } = pretenders({ a: [["x", "y"]], b: [["y", "x"]], c: [[]], d: [] }, 1);
  const rows = await interleave("abcd".split("").map(side), [""], 1, start, () => {});
  expect(log.sort().join(" ")).toBe("a:x0 a:y0 b:x0 b:y0");
  expect(rows[0].map((of) => of.length)).toEqual([1, 1, 1, 1]);
});

test("if one process fails, all are stopped", async () => {
  const { stopped, start } = pretenders({ a: [["x"]], b: [["x"]] }, 3);
  const failing = (of: Side, args: readonly string[]) => {
    const process = start(of, args);
    let calls = 0;
    const next = () => (of.name === "b" && calls++ === 2 ? Promise.reject(new Error("failed")) : process.next());
    return { ...process, next };
  };
  await expect(interleave([side("a"), side("b")], [""], 1, failing, () => {})).rejects.toThrow("failed");
  expect(stopped.sort().join("")).toBe("ab");
});

test("a process that is behind goes first; after a message its place is known", () => {
  const at = (section: number, round: number, name: string): Waiting => ({ section, names: ["x", "y"], round, name });
  expect(nextTurns([at(0, 1, "x"), at(0, 0, "y")])).toEqual([1]);
  expect(nextTurns([at(0, 2, "y"), at(1, -1, "")])).toEqual([0]);
  expect(nextTurns([undefined, at(1, 0, "x")])).toEqual([1]);
  expect(nextTurns([at(0, 0, "x"), at(0, 0, "y")])).toEqual([0]);
  const begun = placeAfter(undefined, { begin: ["x"], rounds: 3 });
  expect(begun).toEqual({ section: 0, names: ["x"], round: -1, name: "" });
  expect(placeAfter(begun, { round: 2, name: "x" })).toEqual({ ...begun, round: 2, name: "x" });
  expect(placeAfter(begun, { begin: [], rounds: 3 }).section).toBe(1);
  const orders = [0, 1, 2, 3, 4, 5].map((turn) => rotated(["a", "b", "c"], turn).join(""));
  expect(new Set(orders).size).toBe(6);
  expect(rotated(["a", "b"], -1)).toEqual(["b", "a"]);
});

test("a process of its own takes its turns at once, and shows them", async () => {
  const shown: string[] = [];
  const pace = atOnce((text) => shown.push(text));
  await pace.begin(["x"], 4);
  await pace.turn(1, "x");
  pace.end();
  expect(shown).toEqual(["round 2 of 4: x"]);
});
