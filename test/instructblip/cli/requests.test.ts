/** The lines of `generate --requests`, without a model. */
import { describe, expect, it } from "vitest";
import {
  MAX_LINE_BYTES,
  parseLine,
  parseRequest,
  splitLines,
} from "../../../src/instructblip/cli/requests/requests.ts";

const encoder = new TextEncoder();

async function linesOf(chunks: readonly (string | Uint8Array)[], most?: number) {
  async function* stream() {
    for (const chunk of chunks) yield typeof chunk === "string" ? encoder.encode(chunk) : chunk;
  }
  const lines: { number: number; text: string | undefined }[] = [];
  for await (const { number, bytes } of splitLines(stream(), most)) {
    lines.push({ number, text: bytes && new TextDecoder().decode(bytes) });
  }
  return lines;
}

const good = { images: ["a.png"], prompts: ["What?"] };

describe("parseRequest", () => {
  it("reads a whole request", () => {
    const request = { ...good, id: "q1", generation: { max_new_tokens: 3, eos_token_id: [2, 5] } };
    expect(parseRequest(JSON.stringify(request))).toEqual({
      id: "q1",
      request: { images: ["a.png"], prompts: ["What?"], generation: { max_new_tokens: 3, eos_token_id: [2, 5] } },
    });
  });

  it.each([
    [
      ["red", "blue"],
      [
        ["red", "blue"],
        ["red", "blue"],
      ],
    ],
    [
      [["red"], ["yes", "no"]],
      [["red"], ["yes", "no"]],
    ],
  ])("reads candidates %j", (candidates, taken) => {
    const request = { images: ["a", "b"], prompts: ["x", "y"], candidates };
    expect(parseRequest(JSON.stringify(request)).request).toEqual({ ...request, generation: {}, candidates: taken });
  });

  it.each([
    [undefined, null],
    [null, null],
    [7, 7],
    ["", ""],
    ["é\u0000", "é\u0000"],
  ])("keeps the id %j", (id, kept) => {
    const parsed = parseRequest(JSON.stringify({ ...good, id }));
    expect(parsed.error).toBeUndefined();
    expect(parsed.id).toBe(kept);
  });

  it.each([
    ["{", "BAD_JSON", /not valid JSON/],
    ['{"images": ["a"], "prompts": ["x"], "candidates": []}', "BAD_REQUEST", /candidates must be .* an empty array/],
    ['{"images": ["a"], "prompts": ["x"], "candidates": "red"}', "BAD_REQUEST", /candidates must be .* a string/],
    ['{"images": ["a"], "prompts": ["x"], "candidates": [["r"], ["b"]]}', "BATCH_MISMATCH", /2 lists of candidates/],
    ['{"images": ["a"], "prompts": ["x"], "candidates": [[]]}', "BAD_REQUEST", /candidates: list 0 .* an empty array/],
    ['{"images": ["a"], "prompts": ["x"], "candidates": ["r", ""]}', "BAD_REQUEST", /a text is empty/],
    [
      '{"images": ["a"], "prompts": ["x"], "candidates": ["r"], "generation": {}}',
      "BAD_REQUEST",
      /leave generation out/,
    ],
    ["{} {}", "BAD_JSON", /not valid JSON/],
    ["[]", "BAD_REQUEST", /object, got an empty array/],
    ["null", "BAD_REQUEST", /object, got null/],
    ["{}", "BAD_REQUEST", /images must be an array .* got nothing/],
    ['{"images": "a.png", "prompts": ["x"]}', "BAD_REQUEST", /images .* got a string/],
    ['{"images": [], "prompts": []}', "BAD_REQUEST", /images .* got an empty array/],
    ['{"images": [""], "prompts": ["x"]}', "BAD_REQUEST", /file name is empty/],
    ['{"images": ["a"], "prompts": [7]}', "BAD_PROMPT", /prompts .* an array with a number in it/],
    ['{"images": ["a"], "prompts": [null]}', "BAD_PROMPT", /prompts .* an array with null in it/],
    ['{"images": ["a", "b"], "prompts": ["x"]}', "BATCH_MISMATCH", /2 images for 1 prompts/],
    ['{"images": [["a", "b"], "c"], "prompts": ["x", "y"]}', "BAD_REQUEST", /images: list 1 .* got a string/],
    ['{"images": [["a", ""]], "prompts": ["x"]}', "BAD_REQUEST", /file name is empty/],
    ['{"images": [[]], "prompts": ["x"]}', "BAD_REQUEST", /images: list 0 .* an empty array/],
    ['{"image": "a", "prompts": ["x"]}', "UNKNOWN_FIELD", /no field "image"\n.*"images": \["image\.png"\]/],
    ['{"images": ["a"], "prompts": ["x"], "generations": {}}', "UNKNOWN_FIELD", /did you mean generation\?/],
    ['{"images": ["a"], "prompts": ["x"], "__proto__": {}}', "UNKNOWN_FIELD", /no field "__proto__"/],
    ['{"images": ["a"], "prompts": ["x"], "generation": [1]}', "BAD_REQUEST", /generation must be an object/],
    [
      '{"images": ["a"], "prompts": ["x"], "generation": {"max_new_token": 3}}',
      "UNKNOWN_OPTION",
      /did you mean max_new_tokens\?/,
    ],
    ['{"images": ["a"], "prompts": ["x"], "id": {}}', "BAD_REQUEST", /id must be/],
  ])("refuses %s", (text, code, message) => {
    const { error } = parseRequest(text);
    expect(error?.code).toBe(code);
    expect(error?.message).toMatch(message);
  });

  // These are generate()'s arguments too, but a request must not reach them.
  it.each(["streamer", "signal", "on_token", "pixel_values", "input_ids", "attention_mask", "__proto__"])(
    "does not let generation name %s",
    (name) => {
      const text = `{"images": ["a"], "prompts": ["x"], "generation": {"${name}": {"cancelled": true}}}`;
      expect(parseRequest(text).error?.code).toBe("UNKNOWN_OPTION");
    },
  );

  it("refuses options whose result has no place in a line", () => {
    const line = (value: boolean) => JSON.stringify({ ...good, generation: { return_dict_in_generate: value } });
    expect(parseRequest(line(true)).error).toMatchObject({ code: "UNSUPPORTED_OPTION" });
  });

  it("refuses a model that a request names, which only --assistant can", () => {
    const line = (assistant_model: unknown) => JSON.stringify({ ...good, generation: { assistant_model } });
    expect(parseRequest(line("x")).error).toMatchObject({
      code: "UNSUPPORTED_OPTION",
      hint: expect.stringContaining("--assistant"),
    });
    expect(parseRequest(line(null)).error).toBeUndefined();
  });

  it("knows the id of a request that it refuses", () => {
    expect(parseRequest('{"id": "q9", "images": 1}')).toMatchObject({ id: "q9", error: { code: "BAD_REQUEST" } });
  });
});

describe("splitLines", () => {
  it("cuts at newlines wherever the chunks end", async () => {
    const text = "one\ntwo\r\n\nfour";
    const expected = ["one", "two\r", "", "four"].map((line, i) => ({ number: i + 1, text: line }));
    expect(await linesOf([text])).toEqual(expected);
    expect(await linesOf([...text])).toEqual(expected);
    expect(await linesOf([`${text}\n`])).toEqual(expected);
    expect(await linesOf(["", "\n"])).toEqual([{ number: 1, text: "" }]);
    expect(await linesOf([])).toEqual([]);
  });

  it("keeps characters whole that a chunk cuts in two", async () => {
    const bytes = encoder.encode("né\n");
    expect(await linesOf([bytes.subarray(0, 2), bytes.subarray(2)])).toEqual([{ number: 1, text: "né" }]);
  });

  it("does not keep a chunk that its reader reuses", async () => {
    const chunk = encoder.encode("ab");
    async function* stream() {
      yield chunk;
      chunk.fill(0x78);
      yield encoder.encode("\n");
    }
    for await (const { bytes } of splitLines(stream())) expect(new TextDecoder().decode(bytes)).toBe("ab");
  });

  it("drops a line that is too long, and goes on behind it", async () => {
    expect(await linesOf(["12345", "6\n1234\n", "x"], 5)).toEqual([
      { number: 1, text: undefined },
      { number: 2, text: "1234" },
      { number: 3, text: "x" },
    ]);
  });
});

describe("parseLine", () => {
  const line = (text: string, number = 1) => parseLine({ number, bytes: encoder.encode(text) });

  it("skips blank lines, and bears a byte order mark and a carriage return", () => {
    expect(line("")).toBeUndefined();
    expect(line(" \t\r")).toBeUndefined();
    expect(line(`\ufeff${JSON.stringify(good)}\r`)?.error).toBeUndefined();
  });

  it("names the line of a mistake", () => {
    expect(line("{", 12)?.error?.message).toMatch(/^line 12: the line is not valid JSON: .*column 2/);
    expect(parseLine({ number: 3, bytes: undefined })?.error).toMatchObject({
      code: "LINE_TOO_LONG",
      message: `line 3: longer than ${MAX_LINE_BYTES} bytes`,
    });
    expect(parseLine({ number: 4, bytes: Uint8Array.of(0x22, 0xff, 0x22) })?.error?.code).toBe("BAD_UTF8");
  });
});
