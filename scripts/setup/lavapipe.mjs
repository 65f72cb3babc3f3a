/** Installs Mesa's lavapipe by apt-get: packages and apt sources. */

import * as fs from "node:fs";
import { delimiter, join } from "node:path";
import { run, SetupError, say } from "./process.mjs";

export const hasApt = () =>
  process.platform === "linux" &&
  (process.env.PATH ?? "").split(delimiter).some((folder) => fs.existsSync(join(folder, "apt-get")));

/** The fields of /etc/os-release. */
export function parseOsRelease(text) {
  const fields = {};
  for (const [, name, , value] of text.matchAll(/^([A-Z_]+)=(["']?)(.*)\2$/gm)) fields[name] = value;
  return fields;
}

/**
 * The binary package sources in an apt source file, enabled ones only, as `{ uris, suites, components, fields }`, in
 * both of sources.list(5)'s formats. `fields` holds the options worth copying (Signed-By, Trusted, Architectures), spelled as in deb822.
 */
export function parseAptSources(text, name) {
  return name.endsWith(".sources") ? parseDeb822(text) : parseOneLine(text);
}

const COPIED_FIELDS = ["Signed-By", "Trusted", "Architectures"];

function parseDeb822(text) {
  const sources = [];
  const lines = text.split("\n").filter((line) => !line.startsWith("#"));
  for (const stanza of lines.join("\n").split(/\n\s*\n/)) {
    const fields = {};
    let last;
    for (const line of stanza.split("\n")) {
      const field = /^([\w-]+):\s*(.*)$/.exec(line);
      if (field) {
        last = field[1].toLowerCase();
        fields[last] = field[2].trimEnd();
      } else if (last && /^\s/.test(line)) {
        fields[last] += "\n" + line; // A continued line, such as a key written out in Signed-By.
      }
    }
    const words = (field) => (fields[field] ?? "").split(/\s+/).filter(Boolean);
    if (!words("types").includes("deb") || /^(no|false|off|0|without|disable)$/i.test(fields.enabled ?? "")) continue;
    const copied = COPIED_FIELDS.filter((field) => fields[field.toLowerCase()] !== undefined);
    sources.push({
      uris: words("uris"),
      suites: words("suites"),
      components: words("components"),
      fields: Object.fromEntries(copied.map((field) => [field, fields[field.toLowerCase()]])),
    });
  }
  return sources;
}

function parseOneLine(text) {
  const sources = [];
  for (const line of text.split("\n")) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
    if (!match) continue;
    const [, optionText = "", uri, suite, components] = match;
    const options = Object.fromEntries(optionText.split(/\s+/).map((option) => option.split(/=(.*)/s)));
    const fields = {};
    if (options["signed-by"]) fields["Signed-By"] = options["signed-by"].replaceAll(",", " ");
    if (options.trusted) fields.Trusted = options.trusted;
    if (options.arch) fields.Architectures = options.arch.replaceAll(",", " ");
    sources.push({ uris: [uri], suites: [suite], components: components.split(/\s+/).filter(Boolean), fields });
  }
  return sources;
}

/**
 * How to get a lavapipe that Dawn accepts: `{ packages, release, addSource }`. Debian 12's own Mesa 22.3 is refused
 * ("shaderUniform*ArrayDynamicIndexing required"), its backports have a newer one; `addSource` is the text of a source file
 * for them, from the configured archive, if there is none yet. Later Debians and Ubuntu have a new enough Mesa.
 */
export function lavapipePlan(osRelease, sources) {
  const packages = ["mesa-vulkan-drivers", "libvulkan1"];
  if (osRelease.VERSION_CODENAME !== "bookworm" || osRelease.ID !== "debian") return { packages };
  const release = "bookworm-backports";
  const has = (suite) => sources.find((source) => source.suites.includes(suite) && source.components.includes("main"));
  if (has(release)) return { packages, release };
  const base = has("bookworm");
  if (!base) throw new SetupError("apt's source files name no archive of Debian 12");
  const fields = Object.entries(base.fields).map(([name, value]) => `${name}: ${value}\n`);
  const addSource = `Types: deb\nURIs: ${base.uris[0]}\nSuites: ${release}\nComponents: main\n${fields.join("")}`;
  return { packages, release, addSource };
}

function readAptSources(etc = "/etc/apt") {
  const folder = join(etc, "sources.list.d");
  const names = fs.existsSync(folder) ? fs.readdirSync(folder).filter((name) => /\.(list|sources)$/.test(name)) : [];
  const paths = [join(etc, "sources.list"), ...names.sort().map((name) => join(folder, name))].filter(fs.existsSync);
  return paths.flatMap((path) => parseAptSources(fs.readFileSync(path, "utf8"), path));
}

export function currentLavapipePlan() {
  return lavapipePlan(parseOsRelease(fs.readFileSync("/etc/os-release", "utf8")), readAptSources());
}

export async function installLavapipe() {
  const plan = currentLavapipePlan();
  const from = plan.release ? ` from ${plan.release}` : "";
  say(`installing Mesa's lavapipe, a software driver${from} (apt-get) …`);
  if (!plan.addSource) return aptInstall(plan);

  const added = "/etc/apt/sources.list.d/bookworm-backports.sources";
  say(`adding ${added}: the archive already in use, suite ${plan.release}`);
  try {
    fs.writeFileSync(added, plan.addSource, { flag: "wx" });
  } catch (error) {
    throw new SetupError(`it cannot be written (${error.code})`); // Never overwrites a file of the user.
  }
  try {
    await aptInstall(plan);
  } catch (error) {
    fs.rmSync(added, { force: true }); // It would break later apt-get updates.
    throw error;
  }
}

export async function aptInstall({ packages, release }) {
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const wait = ["-o", "DPkg::Lock::Timeout=120"];
  // An unreachable source fails the update, but may not be needed: the installation decides.
  const update = await run("apt-get", [...wait, "update"], { env });
  const target = release ? ["-t", release] : [];
  const args = [...wait, "install", "-y", "--no-install-recommends", ...target, ...packages];
  const install = await run("apt-get", args, { env, shield: true });
  if (install.code !== 0) throw new SetupError(aptFailure(update.output + install.output));
}

/** apt's first complaint, in one line. */
export function aptFailure(output) {
  const line = output.split("\n").find((text) => text.startsWith("E: ") || text.startsWith("Err:"));
  return `apt-get failed (${(line ?? "no error message").replace(/^E: /, "").trim()})`;
}
