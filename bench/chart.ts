/** Lines over time, one panel below the other, as an SVG that a browser and GitHub show. */

export interface Panel {
  readonly title: string;
  readonly unit: string;
  readonly values: readonly number[];
}

const width = 900;
const panelHeight = 110;
const margin = { left: 70, right: 20, top: 26, bottom: 10 } as const;

/** `minutes`: over all values, which are at even intervals. */
export function chart(heading: string, panels: readonly Panel[], minutes: number): string {
  const height = 40 + panels.length * panelHeight + 24;
  const body = panels.map((panel, at) => panelText(panel, 40 + at * panelHeight)).join("");
  const ticks = Array.from({ length: 6 }, (_, at) => {
    const x = xOf(at / 5);
    return `<text x="${x}" y="${height - 8}" text-anchor="middle">${((minutes * at) / 5).toFixed(1)} min</text>`;
  }).join("");
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="${margin.left}" y="22" font-size="15">${escaped(heading)}</text>
${body}${ticks}
</svg>
`;
}

/** From 0 up, so that what looks flat is flat. */
function panelText({ title, unit, values }: Panel, top: number): string {
  const max = Math.max(...values, Number.MIN_VALUE) * 1.15;
  const bottom = top + panelHeight - margin.bottom;
  const y = (value: number): string =>
    (bottom - (value / max) * (bottom - top - margin.top)).toFixed(1);
  const points = values.map((value, at) => {
    return `${xOf(at / Math.max(1, values.length - 1)).toFixed(1)},${y(value)}`;
  });
  const last = values.at(-1) ?? 0;
  const peak = Math.max(...values);
  return `<line x1="${margin.left}" y1="${bottom}" x2="${width - margin.right}" y2="${bottom}" stroke="#999"/>
<text x="${margin.left}" y="${top + 14}">${escaped(title)}: at most ${round(peak)} ${unit}, in the end ${round(last)}</text>
<text x="${margin.left - 8}" y="${y(peak)}" text-anchor="end">${round(peak)}</text>
<text x="${margin.left - 8}" y="${bottom}" text-anchor="end">0</text>
<polyline fill="none" stroke="#1f6feb" stroke-width="1.5" points="${points.join(" ")}"/>
`;
}

function xOf(part: number): number {
  return margin.left + part * (width - margin.left - margin.right);
}

function round(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(2);
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
