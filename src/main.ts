#!/usr/bin/env bun
/** The program `barge`: hands the command line to its command and ends with the command's exit status. */
import { run } from "./cli/program.ts";

process.exitCode = await run(process.argv.slice(2));
