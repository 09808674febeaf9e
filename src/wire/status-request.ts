/** What a request for a status asks for: its shape, by which a node checks what it is sent. An older client asks for nothing in particular. Pure. */
import * as v from "valibot";
import { statusGroups, type StatusRequest } from "./status.ts";

const group = v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(0xffff_ffff));

/** Unknown keys are ignored, as they were before there was any. */
const shape = v.object({
  groups: v.optional(v.pipe(v.array(group), v.maxLength(statusGroups.max))),
  after: v.optional(group),
  limit: v.optional(
    v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(statusGroups.briefsMax)),
  ),
  brief: v.optional(v.boolean()),
});

/** The request, or what is wrong with it, in words. */
export function checkStatusRequest(body: unknown): StatusRequest | { readonly problem: string } {
  const result = v.safeParse(shape, body ?? {});
  if (result.success) return result.output;
  const [issue] = result.issues;
  const path = v.getDotPath(issue);
  return { problem: `${path === null ? "" : `${path}: `}${issue.message}` };
}

/** How many groups are to be told of, at the most. */
export function limitOf({ groups, limit, brief }: StatusRequest): number {
  const max = brief === true ? statusGroups.briefsMax : statusGroups.max;
  if (groups !== undefined) return statusGroups.max;
  const usual = brief === true ? statusGroups.briefsMax : statusGroups.usual;
  return Math.min(limit ?? usual, max);
}
