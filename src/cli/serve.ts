/**
 * `barge serve`: one node, until a signal. The first SIGTERM or SIGINT finishes what is in flight and ends with 0; a second one ends at
 * once. Usage errors end with 2 before anything is touched; what goes wrong later has a status of its own in fatal.ts.
 */
import { constants } from "node:os";
import { formatAddress, type NodeConfig, optionsHelp, parseConfig, UsageError } from "../config.ts";
import { fatal, FatalError } from "../fatal.ts";
import { createLogger, type Logger } from "../telemetry/logger.ts";
import { version } from "../version.ts";
import { exitStatus } from "./exit-status.ts";
import { programWords } from "./local-cluster.ts";

/** A person started it and watches: words for people, and what to do next. */
const isWatched = process.stderr.isTTY === true;

/** The promise to service managers: gone in under 3 s. What is not finished by then is as safe as after a crash. */
const stopMsMax = 2_700;

/** Returns only when the help was asked for; otherwise the process ends here. */
export async function serve(argv: readonly string[]): Promise<number> {
  if (argv.includes("--help") || argv.includes("-h")) {
    process.stdout.write(help());
    return exitStatus.ok;
  }
  const config = readConfig(argv);
  const logger = createLogger({ nodeId: config.nodeId, level: config.logLevel });
  process.on("uncaughtException", (error) => fatal("invariant", error.stack ?? error.message));
  const stopAsked = stopSignal(config, logger);
  if (!isWatched) logStart(config, logger);
  if (config.insecure) {
    logger.warn("--insecure: whoever reaches the ports may read and write everything");
  }
  try {
    await runNode(config, logger, stopAsked);
  } catch (error) {
    if (error instanceof FatalError) fatal(error.reason, error.message);
    fatal("invariant", error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  process.exit(exitStatus.ok);
}

function readConfig(argv: readonly string[]): NodeConfig {
  try {
    return parseConfig(argv, process.env);
  } catch (error) {
    if (error instanceof UsageError) error.message += " (barge serve --help lists the options)";
    throw error;
  }
}

interface Serving {
  /** Addresses with the ports that were taken. */
  readonly listen: string;
  readonly http: string;
  readonly startMs: number;
}

async function runNode(
  config: NodeConfig,
  logger: Logger,
  stopAsked: Promise<string>,
): Promise<void> {
  const startMs = performance.now();
  // Loaded only now, so that wrong usage is told at once.
  const { startNode } = await import("../node/node.ts");
  const node = await Promise.race([startNode(config), stopAsked]);
  // Stopped while it was asking to be added: whenever that happens, to start again goes on from there.
  if (typeof node === "string") return;
  const serving = {
    listen: formatAddress({ ...config.listen, port: node.binaryPort }),
    http: formatAddress({ ...config.httpListen, port: node.httpPort }),
    startMs: Math.round(performance.now() - startMs),
  };
  if (!isWatched) logger.info(serving, "serving");
  else if (logger.isLevelEnabled("info")) process.stderr.write(startText(config, serving));
  let removal: string | undefined;
  void node.removed.then((message) => (removal = message));
  const reason = await Promise.race([stopAsked, node.removed]);
  logger.info({ reason }, "stopping: finishing what is in flight");
  const timer = setTimeout(() => {
    logger.warn({ afterMs: stopMsMax }, "not everything finished in time; leaving");
    if (removal !== undefined) fatal("member_removed", removal);
    process.exit(exitStatus.ok);
  }, stopMsMax);
  await node.stop();
  clearTimeout(timer);
  if (removal !== undefined) fatal("member_removed", removal);
  logger.info("stopped");
}

function logStart(config: NodeConfig, logger: Logger): void {
  const { dataDir, advertise, machine, app } = config;
  logger.info(
    {
      version,
      bun: Bun.version,
      pid: process.pid,
      dataDir,
      listen: formatAddress(config.listen),
      advertise,
      http: formatAddress(config.httpListen),
      ...(config.join === undefined
        ? { members: membersText(config) }
        : { join: config.join.endpoints }),
      machine,
      ...(app === undefined ? {} : { app: app.url }),
    },
    "starting",
  );
}

function membersText({ initialMembers }: NodeConfig): string {
  return [...initialMembers].map(([id, address]) => `${id}=${address}`).join(",");
}

/** What a person wants to know: where it is, where its data is, and what to type next. */
function startText(config: NodeConfig, serving: Serving): string {
  const words = programWords();
  const isUsual = serving.listen === "127.0.0.1:9091";
  const endpoints = isUsual ? "" : ` --endpoints ${serving.listen}`;
  const http = `http://${serving.http}`;
  const others = othersText(config);
  return `Barge ${version}, node ${config.nodeId}, ${others}
  data      ${config.dataDir}
  binary    ${serving.listen}
  http      ${http}   ${config.machine === "http" ? "/raft/update, /raft/read" : "/v1/kv/KEY"}, /v1/status, /metrics
${config.app === undefined ? "" : `  app       ${config.app.url}\n`}Started in ${serving.startMs} ms. In another terminal:

${triesText(config, http, `${words} `, endpoints)}
  ${words} status${endpoints}

Ctrl-C stops it; the data stays. The log follows.
`;
}

function triesText(
  { machine }: NodeConfig,
  http: string,
  words: string,
  endpoints: string,
): string {
  return machine === "http"
    ? `  curl -d 'a command of yours' ${http}/raft/update\n  curl -d 'a query of yours' ${http}/raft/read`
    : `  ${words}put greeting hello${endpoints}\n  ${words}get greeting${endpoints}`;
}

function othersText(config: NodeConfig): string {
  const count = config.initialMembers.size;
  if (config.join !== undefined) return "which has joined a running cluster";
  if (count === 1) return "a cluster of its own";
  return `one of ${count}: ${membersText(config)}; it serves once a majority runs`;
}

/** Resolves with what asked to stop. A second signal ends the process at once. */
function stopSignal(config: NodeConfig, logger: Logger): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let asked = false;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      if (asked) process.exit(128 + constants.signals[signal]);
      asked = true;
      resolve(signal);
    });
  }
  if (config.exitWithParent) {
    process.stdin.on("end", () => resolve("the parent is gone"));
    process.stdin.on("error", () => resolve("the parent is gone"));
    process.stdin.resume();
    logger.debug("watching standard input for the end of the parent");
  }
  return promise;
}

function help(): string {
  return `Usage: barge serve [options]

Runs one node. With no option at all: a one-node cluster in ./barge-data, ready to use.
Each option can also stand in the environment or in a TOML file; a flag wins over the
environment, the environment over the file.

Options:
${optionsHelp()}

Examples:
  barge serve
  barge serve --node-id 1 --listen 10.0.0.1:9091 --insecure \\
    --initial-members 1=10.0.0.1:9091,2=10.0.0.2:9091,3=10.0.0.3:9091
  barge serve --node-id 4 --listen 10.0.0.4:9091 --insecure --join 10.0.0.1:9091,10.0.0.2:9091
  barge serve --app-url http://127.0.0.1:8080
`;
}
