/**
 * Builds of other versions, as real processes: the sources of today with the numbers of wire/versions.ts changed while Bun loads them, and the sources
 * of a commit as they were. This file is also what such a process loads first.
 *
 * The older one neither knows sessions nor the batch that raises the apply version; the newer one knows one version more than there is.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Build } from "./cluster.ts";

const root = join(import.meta.dir, "../..");
const program = join(root, "src/main.ts");
const environmentName = "BARGE_TEST_BUILD";

interface Change {
  /** Below src/. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

const versions = "wire/versions.ts";

const changed = {
  /** As the first build was. */
  older: [
    { file: versions, from: "protocolVersionMax = 2;", to: "protocolVersionMax = 1;" },
    { file: versions, from: "applyVersionMax = 3;", to: "applyVersionMax = 1;" },
    {
      file: versions,
      from: "export const featuresKnown =",
      to: "export const featuresKnown = 0;\nexport const featuresOfToday =",
    },
    { file: "version.ts", from: `"0.`, to: `"older-0.` },
  ],
  /** As the one before groups was. */
  withoutGroups: [
    { file: versions, from: "applyVersionMax = 3;", to: "applyVersionMax = 2;" },
    { file: versions, from: "  Feature.groups |\n  Feature.beats;", to: "  0;" },
    { file: "version.ts", from: `"0.`, to: `"without-groups-0.` },
  ],
  /** As the next one may be: it understands today's. */
  newer: [
    { file: versions, from: "protocolVersionMax = 2;", to: "protocolVersionMax = 3;" },
    { file: versions, from: "applyVersionMax = 3;", to: "applyVersionMax = 4;" },
    { file: "version.ts", from: `"0.`, to: `"newer-0.` },
  ],
  /** As one in the far future may be: it understands today's no more. */
  stranger: [
    { file: versions, from: "protocolVersionMin = 1;", to: "protocolVersionMin = 3;" },
    { file: versions, from: "protocolVersionMax = 2;", to: "protocolVersionMax = 3;" },
    { file: "version.ts", from: `"0.`, to: `"stranger-0.` },
  ],
} as const satisfies Record<string, readonly Change[]>;

export type ChangedBuild = keyof typeof changed;

/** The sources of today with other versions. */
export function changedBuild(name: ChangedBuild): Build {
  textsOf(name);
  return {
    name,
    bunArguments: [`--preload=${import.meta.path}`, program],
    environment: { [environmentName]: name },
  };
}

/** The sources of a commit, with the packages of today. */
export async function buildOfCommit(commit: string): Promise<Build> {
  const folder = mkdtempSync(join(tmpdir(), "barge-build-"));
  const sources = join(folder, "sources");
  mkdirSync(sources);
  const archive = Bun.spawn(["git", "-C", root, "archive", commit, "src", "package.json"]);
  const unpack = Bun.spawn(["tar", "-x", "-C", sources], { stdin: archive.stdout });
  if ((await unpack.exited) !== 0 || !existsSync(join(sources, "src/main.ts"))) {
    throw new Error(`there are no sources of ${commit}`);
  }
  symlinkSync(join(root, "node_modules"), join(sources, "node_modules"));
  return { name: commit, bunArguments: [join(sources, "src/main.ts")], environment: {} };
}

function textsOf(name: ChangedBuild): Map<string, string> {
  const texts = new Map<string, string>();
  for (const { file, from, to } of changed[name]) {
    const text = texts.get(file) ?? readFileSync(join(root, "src", file), "utf8");
    if (text.split(from).length !== 2) throw new Error(`src/${file} has not once: ${from}`);
    texts.set(file, text.replace(from, to));
  }
  return texts;
}

const asked = process.env[environmentName];
if (asked !== undefined && Object.hasOwn(changed, asked)) {
  const texts = textsOf(asked as ChangedBuild);
  Bun.plugin({
    name: `build ${asked}`,
    setup(build) {
      for (const [file, contents] of texts) {
        const filter = new RegExp(`/src/${file.replaceAll(".", "\\.")}$`);
        build.onLoad({ filter }, () => ({ contents, loader: "ts" }));
      }
    },
  });
}
