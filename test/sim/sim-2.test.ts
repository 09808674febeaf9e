/** Whole clusters under faults, second half of the seeds. What is checked is in invariants.ts and simulation.ts. */
import { simulationSuite } from "./sim-suite.ts";

simulationSuite(501, 1_000);
