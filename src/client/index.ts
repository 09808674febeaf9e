/**
 * The SDK of Barge: all that is public.
 *
 *     import { connect } from "barge";
 *     await using client = connect({ endpoints: "127.0.0.1:9091" });
 *     const { revision } = await client.put("greeting", "hello");
 *     const entry = await client.get("greeting");
 */
export { BargeError, type ErrorCode, type Outcome } from "../errors.ts";
export type {
  CallOptions,
  ChangeOptions,
  CreateGroupsOptions,
  Client,
  ClientLogger,
  ClientOptions,
  CodecName,
  CommandException,
  CompareResult,
  ConsistencyName,
  DeleteResult,
  Entry,
  Key,
  PutResult,
  RangeItem,
  RangeOptions,
  RangePage,
  ReadAnswer,
  ReadOptions,
  ScanOptions,
  StatusOptions,
  Txn,
  TxnCompare,
  TxnOperation,
  TxnOperationResult,
  TxnResult,
  TxnResults,
  ValueInput,
  ValueOutput,
  WriteBatch,
  WriteManyResult,
  WriteResult,
} from "./api.ts";
export type { Backup, BackupOptions } from "./backup.ts";
export type { BackupHeader } from "../wire/backup.ts";
export type { Change, ChangeBatch, Watch, WatchOptions } from "./watch-api.ts";
export { connect } from "./connect.ts";
export { groupOfKey } from "./group-of-key.ts";
export type {
  GroupEntry,
  GroupsAnswer,
  CompactionAnswer,
  LeaderAnswer,
  MemberEntry,
  MembersAnswer,
  MovedGroupAnswer,
  RemovedGroupsAnswer,
  MemberWish,
  ScrubAnswer,
  SnapshotAnswer,
} from "../wire/admin.ts";
export type {
  GroupBrief,
  GroupsSummary,
  GroupStatus,
  MemberStatus,
  NodeStatus,
} from "../wire/status.ts";
export {
  type Machine,
  type MachineEntry,
  type MachineMoment,
  type MachineServer,
  serveMachine,
  type ServeMachineOptions,
} from "./serve-machine.ts";
