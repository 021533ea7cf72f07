// One chart: a title that is its legend, a canvas by uPlot, and the same numbers as a table.

import uPlot from "uplot";

import { make, say, setAttribute } from "./dom";
import { count, rate } from "./format";
import type { Ink, Theme } from "./theme";

export interface Line {
  label: string;
  ink: Ink;
  dash?: number[];
  dots?: boolean;
  /** Drawn thin behind another line and left out of the legend. */
  faint?: boolean;
}

export interface ChartOptions {
  title: string;
  lines: Line[];
  format: (value: number | null | undefined) => string;
  height: number;
}

/** Charts that share a cursor, a zoom, and what is marked: the best step by a ring, steps at which something happened by dotted lines. */
export interface Group {
  key: string;
  zoomed: boolean;
  best: number | null;
  marks: number[];
}

type Values = readonly (number | null | undefined)[];
const TABLE_ROWS = 24;
const WHOLE_STEPS = [1, 2, 5].flatMap((digit) => Array.from({ length: 8 }, (_, power) => digit * 10 ** power)).sort((one, other) => one - other);

export class Chart {
  readonly element: HTMLElement;
  private readonly host = make("div", { class: "nbt-plot", tabindex: "0", role: "img" });
  private readonly values: HTMLElement[];
  private readonly title: HTMLElement;
  private readonly table = make("table");
  private readonly details: HTMLDetailsElement;
  private readonly plot: uPlot;
  private readonly observer: ResizeObserver;
  private data: uPlot.AlignedData;
  private index: number | null = null;
  private span: [number, number] = [0, 1];

  constructor(
    private readonly options: ChartOptions,
    private readonly theme: Theme,
    private readonly group: Group,
  ) {
    this.title = make("strong", {}, options.title);
    this.values = options.lines.map(() => make("span", { class: "nbt-value" }));
    const keys = options.lines.map((line, index) => (line.faint ? "" : make("span", { class: "nbt-key" }, swatch(line), line.label, " ", this.values[index] ?? "")));
    this.details = make("details", { class: "nbt-data" }, make("summary", {}, "as a table"), make("div", { class: "nbt-scroll" }, this.table));
    this.element = make("figure", { class: "nbt-chart" }, make("figcaption", {}, this.title, ...keys), this.host, this.details);
    this.data = [[], ...options.lines.map(() => [])] as unknown as uPlot.AlignedData;
    this.plot = new uPlot(this.settings(), this.data, this.host);
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this.host);
    this.host.addEventListener("keydown", (event) => this.key(event));
    this.host.addEventListener("blur", () => this.plot.setCursor({ left: -10, top: -10 }));
    // before uPlot's own listener, which then asks for the whole range
    this.host.addEventListener("dblclick", () => (this.group.zoomed = false), { capture: true });
    this.details.addEventListener("toggle", () => this.fillTable());
  }

  rename(title: string): void {
    say(this.title, title);
  }

  /** Show `data` over the steps from `first` to `last`, which all charts of a run share; a zoom that the user made stays. */
  update(data: uPlot.AlignedData, first: number, last: number): void {
    this.data = data;
    this.span = [first, last];
    this.plot.setData(data, !this.group.zoomed);
    if (this.group.zoomed) this.plot.redraw();
    this.legend();
    if (this.details.open) this.fillTable();
  }

  redraw(): void {
    this.plot.redraw(false, true);
  }

  dispose(): void {
    this.observer.disconnect();
    this.plot.destroy();
  }

  private settings(): uPlot.Options {
    const axis: uPlot.Axis = {
      stroke: () => this.theme.ink("fg"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: () => this.theme.ink("grid"), width: 1 },
      ticks: { show: false },
    };
    return {
      width: 300,
      height: this.options.height,
      padding: [8, 16, 0, 0],
      legend: { show: false },
      cursor: { y: false, sync: { key: this.group.key, scales: ["x", null] }, drag: { x: true, y: false }, points: { size: 6 } },
      scales: { x: { time: false, range: (_, low, high) => this.xRange(low, high) }, y: { range: (_, low, high) => yRange(low, high) } },
      axes: [
        { ...axis, grid: { show: false }, size: 22, gap: 3, space: 60, incrs: WHOLE_STEPS, values: (_, splits) => this.labels(splits, count) },
        { ...axis, size: 46, gap: 4, space: 28, values: (_, splits) => this.labels(splits, tick) },
      ],
      series: [{}, ...this.options.lines.map((line) => this.series(line))],
      hooks: {
        setCursor: [(plot) => this.point(plot.cursor.idx ?? null)],
        drawAxes: [(plot) => this.drawMarks(plot)],
        draw: [(plot) => this.drawBest(plot)],
        setSelect: [(plot) => (this.group.zoomed ||= plot.select.width > 0)],
      },
    };
  }

  private series(line: Line): uPlot.Series {
    const stroke = (): string => this.theme.ink(line.ink);
    return {
      label: line.label,
      stroke,
      alpha: line.faint ? 0.3 : 1,
      width: line.faint ? 1 : 2,
      points: line.dots ? { show: true, size: 6, fill: stroke } : { show: false },
      ...(line.dash ? { dash: line.dash } : {}),
    };
  }

  private drawMarks(plot: uPlot): void {
    const { left, top, width, height } = plot.bbox;
    plot.ctx.save();
    plot.ctx.strokeStyle = this.theme.ink("fg");
    plot.ctx.globalAlpha = 0.45;
    plot.ctx.lineWidth = devicePixelRatio;
    plot.ctx.setLineDash([devicePixelRatio, 3 * devicePixelRatio]);
    plot.ctx.beginPath();
    for (const step of this.data[0].length ? this.group.marks : []) {
      const x = plot.valToPos(step, "x", true);
      if (x < left || x > left + width) continue;
      plot.ctx.moveTo(x, top);
      plot.ctx.lineTo(x, top + height);
    }
    plot.ctx.stroke();
    plot.ctx.restore();
  }

  /** A ring with a word round the best look's point. */
  private drawBest(plot: uPlot): void {
    const index = this.group.best === null ? -1 : (this.data[0] as number[]).indexOf(this.group.best);
    this.options.lines.forEach((line, position) => {
      const value = line.dots ? this.column(position + 1)[index] : null;
      if (value == null) return;
      const x = plot.valToPos(this.data[0][index] ?? 0, "x", true);
      const y = plot.valToPos(value, "y", true);
      const { left, top, width } = plot.bbox;
      if (x < left || x > left + width) return;
      plot.ctx.save();
      plot.ctx.strokeStyle = this.theme.ink(line.ink);
      plot.ctx.lineWidth = 1.6 * devicePixelRatio;
      plot.ctx.beginPath();
      plot.ctx.arc(x, y, 6 * devicePixelRatio, 0, 2 * Math.PI);
      plot.ctx.stroke();
      plot.ctx.fillStyle = this.theme.ink("fg");
      plot.ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
      plot.ctx.textAlign = x > left + width - 24 * devicePixelRatio ? "right" : "center";
      plot.ctx.fillText("best", x, y - top > 24 * devicePixelRatio ? y - 10 * devicePixelRatio : y + 18 * devicePixelRatio);
      plot.ctx.restore();
    });
  }

  /** No numbers beside a chart without a point: they would mean nothing. */
  private labels(splits: number[], format: (value: number) => string): string[] {
    return this.data[0].length ? splits.map(format) : splits.map(() => "");
  }

  private xRange(low: number | null, high: number | null): [number, number] {
    const [first, last] = this.span;
    if (this.group.zoomed && low !== null && high !== null) return [low, high];
    return first < last ? [first, last] : [first - 1, last + 1];
  }

  private fit(): void {
    const width = Math.floor(this.host.clientWidth);
    if (width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: this.options.height });
  }

  private point(index: number | null): void {
    if (index === this.index) return;
    this.index = index;
    this.legend();
  }

  /** The values under the cursor, or the latest. */
  private legend(): void {
    const said: string[] = [];
    this.options.lines.forEach((line, position) => {
      const ys = this.column(position + 1);
      const value = this.index === null ? last(ys, ys.length) : last(ys, this.index + 1);
      const element = this.values[position];
      if (element) say(element, this.options.format(value));
      if (!line.faint) said.push(`${line.label} ${this.options.format(value)}`);
    });
    const step = this.index === null ? undefined : this.data[0][this.index];
    setAttribute(this.host, "aria-label", `${this.title.textContent} by step${step === undefined ? "" : `, step ${step}`}: ${said.join(", ")}. Arrow keys read the steps.`);
  }

  private column(index: number): Values {
    return (this.data[index] ?? []) as Values;
  }

  private key(event: KeyboardEvent): void {
    const length = this.data[0].length;
    const moves: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -length, End: length };
    const move = moves[event.key];
    if (move === undefined || length === 0) return;
    event.preventDefault();
    const from = this.index ?? (move < 0 ? length : -1);
    const to = Math.min(length - 1, Math.max(0, from + move));
    const x = this.data[0][to] ?? 0;
    this.plot.setCursor({ left: this.plot.valToPos(x, "x"), top: 10 });
  }

  private fillTable(): void {
    if (!this.details.open) return;
    const heads = make("tr", {}, ...["step", ...this.options.lines.map((line) => line.label)].map((text) => make("th", { scope: "col" }, text)));
    const rows = this.tableRows().map((index) => {
      const cells = this.options.lines.map((_, position) => make("td", {}, this.options.format(this.column(position + 1)[index] ?? null)));
      return make("tr", {}, make("th", { scope: "row" }, this.stepName(this.data[0][index])), ...cells);
    });
    this.table.replaceChildren(make("thead", {}, heads), make("tbody", {}, ...rows));
  }

  private stepName(step: number | undefined): string {
    return count(step) + (step !== undefined && step === this.group.best ? " (best)" : "");
  }

  /** Rows spread over the run, with those first that hold a point of a dotted line (a look at dev). */
  private tableRows(): number[] {
    const length = this.data[0].length;
    const spread = Array.from({ length: Math.min(TABLE_ROWS, length) }, (_, row) => Math.round((row * (length - 1)) / Math.max(1, Math.min(TABLE_ROWS, length) - 1)));
    const dotted = this.options.lines.flatMap((line, position) => (line.dots ? this.column(position + 1).flatMap((value, index) => (value == null ? [] : [index])) : []));
    return [...new Set([...spread, ...dotted.slice(-TABLE_ROWS)])].sort((one, other) => one - other);
  }
}

function last(ys: Values, end: number): number | null {
  for (let index = end - 1; index >= 0; index--) {
    const value = ys[index];
    if (value !== null && value !== undefined) return value;
  }
  return null;
}

function yRange(low: number | null, high: number | null): [number, number] {
  if (low === null || high === null) return [0, 1];
  const margin = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low >= 0 && low < (high - low) * 0.25 ? 0 : low - margin, high + margin];
}

function tick(value: number): string {
  return value !== 0 && Math.abs(value) < 0.01 ? rate(value) : String(Number(value.toPrecision(6)));
}

function swatch(line: Line): SVGSVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 22 8");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", "M0 4H22");
  path.style.stroke = `var(--nbt-${line.ink})`;
  if (line.dash) path.setAttribute("stroke-dasharray", line.dash.join(" "));
  svg.append(path);
  return svg;
}

