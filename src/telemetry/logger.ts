/**
 * The log of a daemon, on standard error: one JSON object a line for machines, one short line of text on a terminal. Lines carry
 * `node`, and `group` and `term` where the caller knows them. There is no line per request.
 *
 * A line is written at once and the event loop waits for it, and what others send can cause one. So lines that come too fast are left out and counted:
 * whoever sends what makes no sense fills neither the disk nor the day.
 */
import pino from "pino";

export type Logger = pino.Logger;

export interface LoggerOptions {
  readonly nodeId: number;
  readonly level: string;
  /** Text for people instead of JSON; by default when standard error is a terminal. */
  readonly text?: boolean;
  /** Monotonic; for tests. */
  readonly nowMs?: () => number;
  /** Where lines go; by default standard error, written at once so that a crash loses none. */
  readonly write?: (line: string) => void;
}

/** So many lines may come at once, and so many a second for ever: some 20 KB. */
export const burstLinesMax = 1_000;
export const linesPerSecondMax = 100;

/** How many lines there is room for. */
class LinePace {
  readonly #nowMs: () => number;
  #room = burstLinesMax;
  #atMs: number;
  #leftOut = 0;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
    this.#atMs = nowMs();
  }

  /** False where the next line is to be left out. */
  take(): boolean {
    const nowMs = this.#nowMs();
    const filled = ((nowMs - this.#atMs) * linesPerSecondMax) / 1_000;
    this.#room = Math.min(burstLinesMax, this.#room + filled);
    this.#atMs = nowMs;
    if (this.#room >= 1) {
      this.#room--;
      return true;
    }
    this.#leftOut++;
    return false;
  }

  /** Lines that were left out since this was asked. */
  takeLeftOut(): number {
    const leftOut = this.#leftOut;
    this.#leftOut = 0;
    return leftOut;
  }
}

export function createLogger(options: LoggerOptions): Logger {
  const toStderr = pino.destination({ fd: 2, sync: true });
  const write = options.write ?? ((line: string): void => void toStderr.write(line));
  const text = options.text ?? process.stderr.isTTY === true;
  const pace = new LinePace(options.nowMs ?? (() => performance.now()));
  return pino(
    {
      hooks: {
        logMethod(line, method) {
          if (!pace.take()) return;
          const leftOut = pace.takeLeftOut();
          if (leftOut > 0) method.call(this, `${leftOut} lines were left out: they came too fast`);
          method.apply(this, line);
        },
      },
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
