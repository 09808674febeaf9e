/** Tables of text, for people. */

/** The first row has the titles; columns of numbers stand at the right, those in `leftColumns` at the left. */
export function alignColumns(
  rows: readonly (readonly string[])[],
  leftColumns: ReadonlySet<string>,
): string {
  const heads = rows[0]!;
  const widths = heads.map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  const pad = (cell: string, i: number): string =>
    leftColumns.has(heads[i]!) ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!);
  return rows.map((row) => row.map(pad).join("  ").trimEnd()).join("\n");
}
