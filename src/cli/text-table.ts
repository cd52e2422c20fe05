/** Tables of aligned columns for the terminal. */

export interface TableOptions {
  /** Columns, by index, whose cells end at the same place. */
  readonly alignRight?: readonly number[];
  /** What stands before each row. */
  readonly indent?: string;
}

/** Rows of cells as lines; a column is as wide as its widest cell. Cells may hold colours. */
export function textTable(rows: readonly (readonly string[])[], options: TableOptions = {}): string {
  const { alignRight = [], indent = "" } = options;
  const columns = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, column) =>
    Math.max(...rows.map((row) => Bun.stringWidth(row[column] ?? ""))),
  );
  const lines = rows.map((row) => {
    const cells = row.map((cell, column) => {
      const padding = " ".repeat(widths[column]! - Bun.stringWidth(cell));
      return alignRight.includes(column) ? `${padding}${cell}` : `${cell}${padding}`;
    });
    return `${indent}${cells.join("  ").trimEnd()}\n`;
  });
  return lines.join("");
}

/** Marks a heading: bold on a terminal, underlined elsewhere. */
export function heading(text: string, isTerminal: boolean, underline = "-"): string {
  if (isTerminal) return `\x1b[1m${text}\x1b[0m\n`;
  return `${text}\n${underline.repeat(Bun.stringWidth(text))}\n`;
}
