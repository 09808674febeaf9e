/** What a daemon with a planted bug loads first: the simulator's bugs, in real processes. Chaos has to find them too. */
import { type Build, thisBuild } from "../e2e/cluster.ts";
import { type BugName, isBugName, plant } from "../sim/planted-bugs.ts";

const environmentName = "PLANTED_BUG";

/** This build, with a bug. */
export function plantedBuild(bug: BugName): Build {
  return {
    name: bug,
    bunArguments: [`--preload=${import.meta.path}`, ...thisBuild.bunArguments],
    environment: { [environmentName]: bug },
  };
}

const asked = process.env[environmentName];
if (asked !== undefined && isBugName(asked)) plant(asked);
