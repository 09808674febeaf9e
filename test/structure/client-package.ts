/**
 * Builds the SDK as a package of its own in `dist/`, for Node.js 20.15 and later and for Bun: one file of JavaScript that needs nothing else, its
 * types, and its README. `bun run build`, or with a folder to build it in another place.
 */
import { cpSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import packageJson from "../../package.json" with { type: "json" };

const root = join(import.meta.dir, "..", "..");

export async function buildClientPackage(out: string): Promise<void> {
  rmSync(out, { recursive: true, force: true });
  mkdirSync(out, { recursive: true });
  const built = await Bun.build({
    entrypoints: [join(root, "src/client/index.ts")],
    target: "node",
    outdir: out,
    // Native code that msgpackr uses where it is there, and does without.
    external: ["msgpackr-extract"],
  });
  if (!built.success) throw new Error(built.logs.join("\n"));
  await emitTypes(join(out, "types"));
  for (const [from, to] of [
    ["src/client/README.md", "README.md"],
    ["LICENSE", "LICENSE"],
  ] as const) {
    cpSync(join(root, from), join(out, to));
  }
  await Bun.write(join(out, "package.json"), `${JSON.stringify(manifest, undefined, 2)}\n`);
}

const manifest = {
  name: "barge-client",
  version: packageJson.version,
  description: "The client of Barge: each write applied exactly once, and you know it.",
  license: packageJson.license,
  type: "module",
  exports: { ".": { types: "./types/client/index.d.ts", default: "./index.js" } },
  engines: { node: ">=20.15", bun: packageJson.engines.bun },
};

const compilerOptions = {
  noEmit: false,
  declaration: true,
  emitDeclarationOnly: true,
  rootDir: join(root, "src"),
};

/** Of all that the compiler emits, what the public page leads to. */
async function emitTypes(out: string): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), "barge-types-"));
  try {
    const project = join(work, "tsconfig.json");
    const all = join(work, "types");
    const config = {
      extends: join(root, "tsconfig.json"),
      compilerOptions: { ...compilerOptions, outDir: all, typeRoots: [join(root, "node_modules")] },
      files: [join(root, "src/client/index.ts")],
      include: [],
    };
    await Bun.write(project, JSON.stringify(config));
    await compile("--project", project);
    await keep(all, out, "client/index.d.ts", new Set());
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Runs the compiler of TypeScript; throws with what it says. */
export async function compile(...options: readonly string[]): Promise<void> {
  const command = [join(root, "node_modules/.bin/tsc"), ...options];
  const compiler = Bun.spawn(command, { stdout: "pipe", stderr: "inherit" });
  const said = await new Response(compiler.stdout).text();
  if ((await compiler.exited) !== 0) throw new Error(said);
}

/** The file and those that it imports, which are found as `.js` by every kind of module resolution. */
async function keep(from: string, to: string, path: string, kept: Set<string>): Promise<void> {
  if (kept.has(path)) return;
  kept.add(path);
  const text = await Bun.file(join(from, path)).text();
  const imports = [...text.matchAll(/^(?:import|export) [^;]*?from "([^"]+)"/gm)].map(
    (match) => match[1]!,
  );
  const foreign = imports.find((name) => !name.startsWith("."));
  if (foreign !== undefined) throw new Error(`the types need ${foreign}: ${path}`);
  await Bun.write(join(to, path), text.replaceAll(/(from "\.[^"]*)\.ts"/g, '$1.js"'));
  for (const name of imports) {
    await keep(from, to, join(dirname(path), name.replace(/\.ts$/, ".d.ts")), kept);
  }
}

if (import.meta.main) {
  const out = resolve(process.argv[2] ?? join(root, "dist"));
  await buildClientPackage(out);
  process.stdout.write(`${out}\n`);
}
