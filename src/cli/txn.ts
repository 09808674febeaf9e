/** `barge txn [FILE]`: commits a transaction that is given as JSON. */
import type { Command } from "commander";
import type {
  Client,
  DeleteResult,
  Entry,
  RangeItem,
  RangePage,
  TxnCompare,
  TxnOperation,
  TxnResult,
} from "../client/index.ts";
import { UsageError } from "../config.ts";
import {
  addSession,
  base64,
  clientCommand,
  preview,
  printJson,
  printLine,
  readable,
  withClient,
  type WriteFlags,
} from "./client-options.ts";
import { exitStatus } from "./exit-status.ts";

interface TxnFlags extends WriteFlags {
  readonly base64?: boolean;
}

const examples = `  echo '{ "compare": [{ "key": "lock", "exists": false }],
          "success": [{ "op": "put", "key": "lock", "value": "me" }],
          "failure": [{ "op": "get", "key": "lock" }] }' | barge txn
                                          takes a lock, or shows who has it
  barge txn --base64 --json move.json     as over HTTP: POST /v1/txn

Compares: { "key", and one of "revision", "value", "exists"; "operator": equal (default), notEqual,
  for revisions also less, greater }. All must hold; a key that is absent has revision 0.
Operations: { "op": put (key, value), delete (key), get (key), or
  range (prefix or from and to; after, limit, keysOnly) }. They run in order, atomically, at one revision.`;

export function txnCommand(): Command {
  return addSession(
    clientCommand(
      "txn",
      "Commits a transaction: compares, then one of two lists of operations; status 1 when the compares do not hold.",
      examples,
    ),
  )
    .argument("[file]", "JSON; absent or -: standard input")
    .option("--base64", "keys and values in the JSON are in base64, not text")
    .action(txn);
}

type AnyResult = TxnResult<"bytes", readonly TxnOperation[], readonly TxnOperation[]>;
type OneResult = AnyResult["results"][number];

interface Given {
  readonly compare: readonly TxnCompare[];
  readonly success: readonly TxnOperation[];
  readonly failure: readonly TxnOperation[];
}

async function txn(file: string | undefined, flags: TxnFlags): Promise<void> {
  const given = parse(await read(file), flags.base64 === true);
  const { succeeded, revision, results } = await withClient(flags, (client) =>
    commit(client, given),
  );
  if (!succeeded) process.exitCode = exitStatus.no;
  if (flags.json === true) {
    return printJson({ succeeded, revision, results: results.map(jsonResult) });
  }
  const operations = succeeded ? given.success : given.failure;
  const lines = results.flatMap((each, at) => linesOf(operations[at]!, each));
  const words = succeeded ? "succeeded" : "the compares did not hold";
  await printLine([`${words}: revision ${revision}`, ...lines].join("\n"));
}

function commit(client: Client, { compare, success, failure }: Given): Promise<AnyResult> {
  return client
    .txn()
    .compare(...compare)
    .onSuccess(...success)
    .onFailure(...failure)
    .commit();
}

/* ------------------------------------------------------------------ in */

async function read(file: string | undefined): Promise<string> {
  if (file === undefined || file === "-") return await Bun.stdin.text();
  try {
    return await Bun.file(file).text();
  } catch (error) {
    throw new UsageError(`cannot read ${file}: ${(error as Error).message}`);
  }
}

const listNames = ["compare", "success", "failure"];
/** Fields that hold a key or a value. */
const bytesFields = ["key", "value", "prefix", "from", "to", "after"];

/** The lists of a transaction. What is in them is checked by the SDK, which names what is wrong. */
function parse(text: string, inBase64: boolean): Given {
  let given: unknown;
  try {
    given = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`the transaction is not JSON: ${(error as Error).message}`);
  }
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw new UsageError(`the transaction must be an object with ${listNames.join(", ")}`);
  }
  const lists: Record<string, unknown[]> = { compare: [], success: [], failure: [] };
  for (const [name, list] of Object.entries(given)) {
    if (!listNames.includes(name)) {
      throw new UsageError(`${name}: is unknown; known here: ${listNames.join(", ")}`);
    }
    if (!Array.isArray(list)) throw new UsageError(`${name}: must be a list`);
    lists[name] = inBase64 ? list.map((each, at) => decoded(each, `${name}[${at}]`)) : list;
  }
  return lists as unknown as Given;
}

function decoded(given: unknown, place: string): unknown {
  if (typeof given !== "object" || given === null) return given;
  const fields: Record<string, unknown> = { ...given };
  for (const name of bytesFields) {
    const text = fields[name];
    if (typeof text !== "string") continue;
    try {
      fields[name] = Uint8Array.fromBase64(text);
    } catch {
      throw new UsageError(`${place}.${name}: must be in base64`);
    }
  }
  return fields;
}

/* ------------------------------------------------------------------ out */

/** As over HTTP: keys and values in base64, null for a key that is absent. */
function jsonResult(result: OneResult): unknown {
  if (result === undefined) return null;
  if ("items" in result) return { ...result, items: result.items.map(jsonEntry) };
  return "value" in result ? jsonEntry(result) : result;
}

function jsonEntry(entry: Entry | RangeItem): unknown {
  const { value, revision } = entry;
  const rest = { value: base64(value), revision };
  return "key" in entry ? { key: base64(entry.key), ...rest } : rest;
}

function linesOf(operation: TxnOperation, result: OneResult): string[] {
  if (operation.op === "range") {
    const { items, more } = result as RangePage;
    const lines = items.map(({ key, value, revision }) =>
      ["range", readable(key), revision, preview(value)].join("\t"),
    );
    return more ? [...lines, "range\t… there is more"] : lines;
  }
  const { op, key } = operation;
  const name = typeof key === "string" ? readable(new TextEncoder().encode(key)) : readable(key);
  if (op === "put") return [`put\t${name}`];
  if (op === "delete") {
    const { deleted } = result as DeleteResult;
    return [`delete\t${name}${deleted ? "" : "\tthere was no such key"}`];
  }
  const entry = result as Entry | undefined;
  if (entry === undefined) return [`get\t${name}\tthere is no such key`];
  return [["get", name, entry.revision, preview(entry.value)].join("\t")];
}
