/** The Hub's names, variables and refusals; see hub_download.test.ts for the cache and the network. */
import { expect, test } from "vitest";
import {
  cleanToken,
  HUB_URL,
  hubRefusal,
  hubSettings,
  parseHubId,
  repositoryFolder,
} from "../../../src/instructblip/pretrained/hub/hub.ts";

const HUB = "https://hub.example";

test.each([
  ["Salesforce/instructblip-flan-t5-xl", "Salesforce/instructblip-flan-t5-xl", "main"],
  ["a/b@v1.0", "a/b", "v1.0"],
  ["a/b@refs/pr/1", "a/b", "refs/pr/1"],
  ["a_b/c.d-e", "a_b/c.d-e", "main"],
])("%s is an id", (text, repository, revision) => {
  expect(parseHubId(text)).toMatchObject({ repository, revision });
});

test.each([
  "name",
  "./a/b",
  "../b",
  "a/..",
  "/a/b",
  "a/b/c",
  "a/b/",
  "~/b",
  "a\\b/c",
  "a/b--c",
  "a/b.git",
  "-a/b",
  "a/.b",
  "a b/c",
  "C:/b",
  "a/b@",
  "a/b@../x",
  "a/b@x//y",
  "a/b@/x",
  "a/b@x/.y",
  `a/${"b".repeat(97)}`,
])("%s is a path", (text) => {
  expect(parseHubId(text)).toBeUndefined();
});

test("a repository's folder is named as huggingface_hub names it", () => {
  expect(repositoryFolder("Salesforce/instructblip-vicuna-7b")).toBe("models--Salesforce--instructblip-vicuna-7b");
});

test("variables have huggingface_hub's precedence, and empty ones count as absent", () => {
  expect(hubSettings({})).toEqual({
    endpoint: HUB_URL,
    cache: undefined,
    home: undefined,
    userCache: undefined,
    token: undefined,
    tokenPath: undefined,
    offline: false,
    symlinks: true,
  });
  const old = { HUGGINGFACE_HUB_CACHE: "/old", HUGGING_FACE_HUB_TOKEN: "hf_old", TRANSFORMERS_OFFLINE: "ON" };
  expect(hubSettings(old)).toMatchObject({ cache: "/old", token: "hf_old", offline: true });
  const now = {
    ...old,
    HF_HUB_CACHE: "/new",
    HF_TOKEN: "hf_new",
    HF_HUB_OFFLINE: "0",
    HF_ENDPOINT: "http://mirror/hf/",
  };
  expect(hubSettings(now)).toMatchObject({
    cache: "/new",
    token: "hf_new",
    offline: false,
    endpoint: "http://mirror/hf",
  });
  expect(hubSettings({ ...old, HF_HUB_CACHE: "", HF_ENDPOINT: "" })).toMatchObject({
    cache: "/old",
    endpoint: HUB_URL,
  });
  for (const HF_ENDPOINT of ["hub.example", "file:///tmp"]) {
    expect(() => hubSettings({ HF_ENDPOINT })).toThrow(expect.objectContaining({ code: "ENV" }));
  }
});

test("a token loses its newline, and a bad one is refused without being shown", () => {
  expect(cleanToken(" hf_abc\n", "HF_TOKEN")).toBe("hf_abc");
  expect(cleanToken(" \n", "HF_TOKEN")).toBeUndefined();
  try {
    cleanToken("hf_secret and more", "HF_TOKEN");
    expect.unreachable();
  } catch (error) {
    expect(error).toMatchObject({ code: "ENV" });
    expect(String(error)).not.toContain("secret");
  }
});

test.each([
  [401, "GatedRepo", false, undefined, "HUB_GATED", /accept the conditions at .*a\/b, then set HF_TOKEN/],
  [403, "GatedRepo", true, undefined, "HUB_GATED", /accept the conditions at .* with the account of your token/],
  [401, null, false, undefined, "HUB_UNAUTHORIZED", /check the name; if it is private, set HF_TOKEN/],
  [401, null, true, undefined, "HUB_UNAUTHORIZED", /does not accept the token/],
  [403, null, true, undefined, "HUB_FORBIDDEN", /does not let this account/],
  [404, "RepoNotFound", false, undefined, "HUB_REPOSITORY_NOT_FOUND", /no such folder, and no such model/],
  [404, "RevisionNotFound", false, undefined, "HUB_REVISION_NOT_FOUND", /no revision "dev"/],
  [404, "EntryNotFound", false, "x.json", "NOT_FOUND", /no file "x.json" at revision dev/],
  [404, null, false, "x.json", "NOT_FOUND", /no file "x.json"/],
  [503, null, false, undefined, "HUB_BUSY", /answers 503/],
  [429, null, false, "x.json", "HUB_BUSY", /answers 429 for "x.json"/],
  [418, null, false, undefined, "HUB_STATUS", /answers 418/],
])("%s %s, token %s, file %s is %s", (status, errorCode, hasToken, file, code, message) => {
  const refusal = hubRefusal(status, errorCode, { repository: "a/b", revision: "dev", endpoint: HUB, file, hasToken });
  expect(refusal.code).toBe(code);
  expect(refusal.message).toMatch(message);
});
