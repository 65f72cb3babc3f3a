/** Settings of `compare`. */
import { describe, expect, test } from "vitest";
import { isSetting, parseSetting } from "../../../src/instructblip/compare/setting.ts";

describe("a setting", () => {
  test.each([
    ["default", {}],
    ["dtype=int8", { dtype: "int8" }],
    [
      "dtype=language_model=int4,vision_model=f16,compute_dtype=f16",
      { dtype: { language_model: "int4", vision_model: "f16" }, compute_dtype: "f16" },
    ],
    [
      "plan=linear=tile,attention=composed,dtype=float16",
      { plan: { linear: "tile", attention: "composed" }, dtype: "f16" },
    ],
    ["kv_cache_dtype=f16, adapter=llvmpipe (LLVM 15)", { kv_cache_dtype: "f16", adapter: "llvmpipe (LLVM 15)" }],
    ["model=a/b=c,interventions=x.json", { model: "a/b=c", interventions: "x.json" }],
  ])("%s", (text, expected) => {
    expect(parseSetting(text)).toEqual({ text, ...expected });
    expect(isSetting(text)).toBe(true);
  });

  test.each([
    ["dtyp=int8", "SETTING", /did you mean dtype/],
    ["compute_dtype=int8", "SETTING", /must be f32 or f16/],
    ["compute_dtype=f16,tile", "SETTING", /no setting "tile"/],
    ["dtype=int5", "DTYPE", /int5/],
    ["dtype=int8,dtype=int4", "SETTING", /twice/],
    ["model=", "SETTING", /no value/],
    ["plan=linear=fast", "ENV", /no variant "fast"/],
  ])("%s is refused", (text, code, message) => {
    expect(() => parseSetting(text)).toThrow(message);
    expect(() => parseSetting(text)).toThrowError(expect.objectContaining({ code }));
  });

  test.each(["a.safetensors", "runs/x=1/a.safetensors", "trace"])("%s is a file", (text) => {
    expect(isSetting(text)).toBe(false);
  });
});
