/** Whole clusters under faults, first half of the seeds. What is checked is in invariants.ts and simulation.ts. */
import { simulationSuite } from "./sim-suite.ts";

simulationSuite(1, 500);
