/**
 * The log of a daemon, on standard error: one JSON object a line for machines, one short line of text on a terminal. Lines carry
 * `node`, and `group` and `term` where the caller knows them. There is no line per request.
 */
import pino from "pino";

export type Logger = pino.Logger;

export interface LoggerOptions {
  readonly nodeId: number;
  readonly level: string;
  /** Text for people instead of JSON; by default when standard error is a terminal. */
  readonly text?: boolean;
  /** Where lines go; by default standard error, written at once so that a crash loses none. */
  readonly write?: (line: string) => void;
}

export function createLogger(options: LoggerOptions): Logger {
  const toStderr = pino.destination({ fd: 2, sync: true });
  const write = options.write ?? ((line: string): void => void toStderr.write(line));
  const text = options.text ?? process.stderr.isTTY === true;
  return pino(
    {
      level: options.level,
      base: { node: options.nodeId },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (level) => ({ level }) },
      messageKey: "message",
      errorKey: "error",
    },
    { write: text ? (line: string) => write(formatLine(line)) : write },
  );
}

/** A logger that says nothing, for tests and tools. */
export function silentLogger(): Logger {
  return pino({ level: "silent" });
}

/** One JSON line as text: `12:00:00.123 info  node=1 group=0 became leader term=3`. */
export function formatLine(line: string): string {
  const { time, level, message, error, node, group, term, ...rest } = JSON.parse(line) as Record<
    string,
    unknown
  >;
  const head = [String(time).slice(11, 23), String(level).padEnd(5), pairs({ node, group, term })];
  const tail = [String(message ?? ""), pairs(rest), errorText(error)];
  return `${[...head, ...tail].filter((part) => part !== "").join(" ")}\n`;
}

function pairs(fields: Readonly<Record<string, unknown>>): string {
  return Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(" ");
}

function errorText(error: unknown): string {
  if (error === undefined) return "";
  const { message, stack } = error as { readonly message?: string; readonly stack?: string };
  if (stack !== undefined) return `\n${stack}`;
  return `error=${message ?? JSON.stringify(error)}`;
}
