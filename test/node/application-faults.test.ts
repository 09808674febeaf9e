/** A sample of application-faults.ts. */
import { expect, test } from "bun:test";
import { applicationFaults } from "./application-faults.ts";

const seed = Number(process.env["SEED"] ?? 1 + Math.floor(Math.random() * 1_000));

test(`applications and nodes that fail under writes, SEED=${seed}`, async () => {
  expect(await applicationFaults(5, seed)).toContain("applied");
}, 60_000);
