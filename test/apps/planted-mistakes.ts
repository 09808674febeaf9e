/** Mistakes that authors of applications make, each as a change of the TypeScript application's text, and the check of `barge conform` that must find it. */

export interface PlantedMistake {
  readonly name: string;
  readonly from: string;
  readonly to: string;
  /** Titles of the checks that may find it; the first one that fails is among them. */
  readonly foundBy: readonly string[];
  /** In what its author is told. */
  readonly says: RegExp;
  /** It shows only where the application is killed. */
  readonly needsKill?: true;
}

const index = 'db.query("UPDATE applied SET idx = ?").run(index);';

export const plantedMistakes: readonly PlantedMistake[] = [
  {
    name: "the index is stored at times, the data each time",
    from: `  ${index}\n`,
    to: "  indexInMemory = index;\n",
    foundBy: ["what was answered survives a kill"],
    says: /though the data of those entries are there/,
    needsKill: true,
  },
  {
    name: "entries are stored one by one, and the index at the end",
    from: "const update = db.transaction((entries: readonly Entry[]) => {",
    to: "const update = ((entries: readonly Entry[]) => {",
    foundBy: ["the index is that of the data, whenever the application is killed"],
    says: /but (the data of index \d+|data that)/,
    needsKill: true,
  },
  {
    name: "the reply comes before the data is stored",
    from: "Results: update(Entries) });",
    to: "Results: later(Entries) });",
    foundBy: ["what was answered survives a kill"],
    says: /killed after that, the application came back with LastLogIndex/,
    needsKill: true,
  },
  {
    name: "snapshots hold the time",
    from: "yield `${lastIndex(own)}\\n`;",
    to: 'yield `${lastIndex(own)}\\n`;\n  yield `${JSON.stringify({ key: "saved", value: performance.now() })}\\n`;',
    foundBy: ["the same handle gives the same bytes, while updates go on"],
    says: /they differ from byte \d+ on/,
  },
  {
    name: "snapshots do not keep their moment",
    from: "own ? new Response(save(own))",
    to: "own ? new Response(save(reader))",
    foundBy: ["the same handle gives the same bytes, while updates go on"],
    says: /differ from byte|made at index|as it was when PrepareSnapshot/,
  },
  {
    name: "results in another order",
    from: "  return results;",
    to: "  return results.toReversed();",
    foundBy: ["updates in one call do what they do one by one, with the results in their order"],
    says: /in another order than its entries/,
  },
  {
    name: "a result is missing",
    from: "  return results;",
    to: "  return results.length > 1 ? results.slice(1) : results;",
    foundBy: ["updates in one call do what they do one by one, with the results in their order"],
    says: /another number of results/,
  },
  {
    name: "entries that were applied are applied again",
    from: "    if (Index <= index) return {};\n    index = Index;",
    to: "    index = Math.max(index, Index);",
    foundBy: ["entries that were applied before are skipped"],
    says: /applied them twice/,
  },
  {
    name: "nobody looks whether something is missing",
    from: "if (previous !== lastIndex(db))",
    to: "if (previous < 0)",
    foundBy: ["a call that leaves something out is refused with 409"],
    says: /barge-previous-index/,
  },
  {
    name: "the clock decides",
    from: "`${found}${value},`);",
    to: "`${found}${value}@${Math.floor(performance.now())},`);",
    foundBy: ["the same updates give the same results and the same state"],
    says: /when the same updates come again/,
  },
  {
    name: "indexes of 32 bits",
    from: `  ${index}`,
    to: `  ${index.replace("run(index)", "run(index | 0)")}`,
    foundBy: ["indexes may have gaps, and go up to 2^53-1"],
    says: /LastLogIndex says 3\./,
  },
  {
    name: "a command that makes no sense is an error",
    from: 'else return "error: unknown command";',
    to: 'else throw new Error("unknown command");',
    foundBy: ["a command that makes no sense becomes a result, not an error"],
    says: /does not understand: UpdateEntries answers status 500/,
  },
  {
    name: "snapshots without the index",
    from: 'if (typeof row === "number") db.query("UPDATE applied SET idx = ?").run(row);',
    to: 'if (typeof row === "number") count += 0;',
    foundBy: [
      "indexes may have gaps, and go up to 2^53-1",
      "the same updates give the same results and the same state",
    ],
    says: /made at index \d+, and LastLogIndex then says/,
  },
  {
    name: "recovery adds to what is there",
    from: '    db.run("DELETE FROM items");\n',
    to: "",
    foundBy: ["the same updates give the same results and the same state"],
    says: /after the same|when the same updates/i,
  },
];

/** What is not stored as it should be is stored before a snapshot: without a crash nobody notices. */
const helpers = `
let indexInMemory: number | undefined;
function store(): void {
  if (indexInMemory !== undefined) db.query("UPDATE applied SET idx = ?").run(indexInMemory);
  indexInMemory = undefined;
  if (db.inTransaction) db.run("COMMIT");
}
function later(entries: readonly Entry[]) {
  if (!db.inTransaction) db.run("BEGIN");
  return update(entries);
}
`;

/** The text of the application with the mistake in it. */
export function plant(source: string, mistake: PlantedMistake): string {
  const change = (text: string, from: string, to: string): string => {
    if (text.split(from).length !== 2) throw new Error(`"${mistake.name}": its place has moved`);
    return text.replace(from, () => to);
  };
  let text = change(source, mistake.from, mistake.to);
  if (mistake.needsKill !== true) return text;
  text = change(text, "  const own = open();\n", "  store();\n  const own = open();\n");
  text = change(
    text,
    '  db.run("BEGIN IMMEDIATE");\n',
    '  store();\n  db.run("BEGIN IMMEDIATE");\n',
  );
  const head = "function lastIndex(from: Database): number {\n";
  const inMemory = "  if (from === db && indexInMemory !== undefined) return indexInMemory;\n";
  text = change(text, head, head + inMemory);
  // Only its own connection sees what is not stored yet.
  return change(text, "get(reader, ", "get(db, ") + helpers;
}
