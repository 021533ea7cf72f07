// The panel: what a run's state and curves look like. Knows no kernel; it is handed data and says what was asked for.

import uPlot from "uplot";

import { Chart, type Group } from "./chart";
import { Controls } from "./controls";
import { type Curve, type Curves, DEV_LOSS, LEARNING_RATE, LOSS, SCORE, smooth } from "./curves";
import { make, say, setAttribute } from "./dom";
import { count, figure, rate, wholeDuration } from "./format";
import { Measured } from "./measured";
import { type Action, isOver, type Request, type Sample, type State } from "./state";
import { Theme } from "./theme";

const SMOOTH_FROM = 30;
const SILENT_SECONDS = 20;
const MARKS = 12;
/** What the pill says while one waits for it. */
const WAITING: readonly [Action, string][] = [["stop", "stopping"], ["pause", "pausing"], ["resume", "resuming"]];
let groups = 0;

export class View {
  readonly element = make("section", { class: "nbt-panel", "data-lm-suppress-shortcuts": "true" });
  private readonly pill = make("span", { class: "nbt-pill" });
  private readonly name = make("span", { class: "nbt-name" });
  private readonly method = make("span", { class: "nbt-dim" });
  private readonly phase = make("span", { class: "nbt-dim nbt-phase" });
  private readonly fill = make("div", { class: "nbt-fill" });
  private readonly bar = make("div", { class: "nbt-bar", role: "progressbar", "aria-valuemin": "0", "aria-label": "progress" }, this.fill);
  private readonly measured = new Measured();
  private readonly controls: Controls;
  private readonly group: Group;
  private readonly samples = make("tbody");
  private readonly sampleBox: HTMLElement;
  private readonly errors = make("div");
  private readonly notes = make("div", { class: "nbt-notes" });
  private readonly live = make("div", { class: "nbt-hidden", "aria-live": "polite" });
  private readonly theme: Theme;
  private readonly loss: Chart;
  private readonly score: Chart;
  private readonly learningRate: Chart;
  private readonly clock: number;
  private state: State | null = null;
  private heard = performance.now();
  private frame = 0;

  constructor(
    private readonly curves: Curves,
    send: (request: Request) => void,
  ) {
    this.controls = new Controls(send, () => this.asked());
    this.theme = new Theme(this.element, () => this.redraw());
    const group = (this.group = { key: `nbtune-${++groups}`, zoomed: false, best: null, marks: [] });
    this.loss = new Chart({ title: "Loss", height: 218, format: figure, lines: [
      { label: "each step", ink: "a", faint: true },
      { label: "train", ink: "a" },
      { label: "dev", ink: "b", dash: [6, 4], dots: true },
    ] }, this.theme, group);
    this.score = new Chart({ title: "Dev score", height: 118, format: figure, lines: [{ label: "", ink: "c", dash: [2, 3], dots: true }] }, this.theme, group);
    this.learningRate = new Chart({ title: "Learning rate", height: 66, format: rate, lines: [{ label: "", ink: "d" }] }, this.theme, group);
    const heads = ["step", "prompt", "expected", "output", ""].map((text) => make("th", { scope: "col" }, text));
    this.sampleBox = make("div", { class: "nbt-scroll nbt-samples", hidden: "" }, make("table", {}, make("caption", {}, "Samples from dev"), make("thead", {}, make("tr", {}, ...heads)), this.samples));
    const small = make("div", { class: "nbt-column" }, this.score.element, this.learningRate.element);
    this.element.append(
      make("header", {}, this.name, this.method, this.pill, this.phase, this.controls.bar),
      this.controls.more,
      this.bar,
      this.measured.element,
      this.errors,
      make("div", { class: "nbt-charts" }, this.loss.element, small),
      this.sampleBox,
      this.notes,
      this.live,
    );
    for (const kind of ["keydown", "keyup", "keypress"] as const) this.element.addEventListener(kind, (event) => event.stopPropagation());
    this.clock = setInterval(() => this.tick(), 1000);
  }

  /** Show a state; what is announced is only what a listener waits for. */
  setState(state: State): void {
    const before = this.state;
    this.state = state;
    this.heard = performance.now();
    setAttribute(this.element, "aria-label", `Run ${state.name}`);
    say(this.name, state.name);
    say(this.method, state.method);
    this.controls.show(state);
    this.header(state);
    this.progress(state);
    this.measured.show(state, 0);
    this.drawNotes(state);
    this.sign(state);
    if (before) this.announce(before, state);
    this.score.rename(state.metric ? `Dev ${state.metric}` : "Dev score");
  }

  setSamples(samples: readonly Sample[]): void {
    this.sampleBox.hidden = samples.length === 0;
    this.samples.replaceChildren(...samples.map(sampleRow));
  }

  /** Draw the curves with the next frame. */
  drawCurves(): void {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      const [loss, dev, score, learningRate] = [LOSS, DEV_LOSS, SCORE, LEARNING_RATE].map((kind) => this.curves.all[kind] ?? { xs: [], ys: [] }) as [Curve, Curve, Curve, Curve];
      const many = loss.xs.length >= SMOOTH_FROM;
      const train: uPlot.AlignedData = [loss.xs, many ? loss.ys : loss.ys.map(() => null), many ? smooth(loss.ys) : loss.ys];
      const steps = [...loss.xs.slice(0, 1), ...loss.xs.slice(-1), ...dev.xs.slice(-1)];
      const span = [Math.min(...steps, Infinity), Math.max(...steps, -Infinity)].map((step) => (Number.isFinite(step) ? step : 0)) as [number, number];
      this.loss.update(uPlot.join([train, [dev.xs, dev.ys]]), ...span);
      this.score.update([score.xs, score.ys], ...span);
      this.learningRate.update([learningRate.xs, learningRate.ys], ...span);
    });
  }

  dispose(): void {
    clearInterval(this.clock);
    cancelAnimationFrame(this.frame);
    this.theme.dispose();
    for (const chart of [this.loss, this.score, this.learningRate]) chart.dispose();
  }

  private redraw(): void {
    for (const chart of [this.loss, this.score, this.learningRate]) chart.redraw();
  }

  private header(state: State): void {
    const silent = (performance.now() - this.heard) / 1000;
    const over = isOver(state.status);
    const waiting = over ? undefined : WAITING.find(([action]) => this.controls.waits(action))?.[1];
    const status = waiting ?? state.status;
    say(this.pill, status);
    setAttribute(this.pill, "data-status", status);
    say(this.phase, !over && silent > SILENT_SECONDS ? `no word from the kernel for ${wholeDuration(silent)}` : waiting ? "at the next step" : state.phase);
  }

  /** The signs in the charts; the curves are drawn again only where these moved. */
  private sign(state: State): void {
    const marks = state.marks.slice(-MARKS).map((mark) => mark.step);
    if (this.group.best === state.best_step && String(this.group.marks) === String(marks)) return;
    Object.assign(this.group, { best: state.best_step, marks });
    this.redraw();
  }

  private progress(state: State): void {
    const total = state.total_steps;
    const part = total ? Math.min(1, state.step / total) : 0;
    this.fill.style.width = `${(100 * part).toFixed(2)}%`;
    this.bar.toggleAttribute("data-busy", total === null && !isOver(state.status));
    if (total === null) this.bar.removeAttribute("aria-valuenow");
    else setAttribute(this.bar, "aria-valuenow", String(state.step));
    setAttribute(this.bar, "aria-valuemax", String(total ?? 100));
    setAttribute(this.bar, "aria-valuetext", total === null ? state.phase || state.status : `step ${state.step} of ${total}`);
  }

  private drawNotes(state: State): void {
    const items = state.notes.map((note) => message(note.level, note.level === "warning" ? "Warning" : "", note.text));
    const error = state.error ? [message("error", "Error", state.hint ? `${state.error}\n→ ${state.hint}` : state.error)] : [];
    const marks = state.marks.slice(-MARKS).map((mark) => `step ${count(mark.step)}: ${mark.text}`);
    replace(this.notes, marks.length ? [...items, message("info", "", marks.join(" · "))] : items);
    replace(this.errors, error);
  }

  private announce(before: State, state: State): void {
    if (before.status !== state.status) say(this.live, `${state.name}: ${state.status}${state.error ? `, ${state.error}` : ""}`);
    else if (state.gap_text && state.gap_text !== before.gap_text) say(this.live, state.gap_text);
    else if (state.dev_loss !== null && before.dev_loss !== state.dev_loss) {
      const score = state.score === null ? "" : `, ${state.metric} ${figure(state.score)}`;
      say(this.live, `step ${state.step}: dev loss ${figure(state.dev_loss)}${score}`);
    }
  }

  /** Something was pressed: say so before the kernel does. */
  private asked(): void {
    if (!this.state) return;
    this.header(this.state);
    const waiting = WAITING.find(([action]) => this.controls.waits(action))?.[1];
    if (waiting) say(this.live, `${waiting} at the next step`);
  }

  private tick(): void {
    if (!this.state || isOver(this.state.status)) return;
    this.header(this.state);
    this.measured.show(this.state, (performance.now() - this.heard) / 1000);
  }
}

/** New children only where they say something new, so that a selection stays. */
function replace(box: HTMLElement, items: HTMLElement[]): void {
  const same = box.childElementCount === items.length && items.every((item, index) => box.children[index]?.textContent === item.textContent);
  if (!same) box.replaceChildren(...items);
}

function message(level: string, word: string, text: string): HTMLElement {
  const lead = word ? [make("b", {}, word), " "] : [];
  return make("p", { class: "nbt-msg", "data-level": level, ...(level === "error" ? { role: "alert" } : {}) }, ...lead, text);
}

function sampleRow(sample: Sample): HTMLElement {
  const text = (words: string): HTMLElement => make("td", {}, make("span", { class: "nbt-text" }, words));
  const word = sample.right ? "as expected" : "not as expected";
  const mark = make("span", { class: sample.right ? "nbt-ok" : "nbt-no", role: "img", "aria-label": word, title: word }, sample.right ? "✓" : "✗");
  return make("tr", {}, make("td", { class: "nbt-number" }, count(sample.step)), text(sample.prompt), text(sample.expected), text(sample.output), make("td", {}, mark));
}
