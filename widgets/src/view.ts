// The panel: what a run's state and curves look like. Knows no kernel; it is handed data and says when Stop was pressed.

import uPlot from "uplot";

import { Chart } from "./chart";
import { type Curve, type Curves, DEV_LOSS, LEARNING_RATE, LOSS, SCORE, smooth } from "./curves";
import { make, say, setAttribute } from "./dom";
import { count, duration, figure, memory, rate, wholeDuration } from "./format";
import { isOver, type Sample, type State } from "./state";
import { Theme } from "./theme";

const SMOOTH_FROM = 30;
const SILENT_SECONDS = 20;
let groups = 0;

export class View {
  readonly element = make("section", { class: "nbt-panel", "data-lm-suppress-shortcuts": "true" });
  private readonly pill = make("span", { class: "nbt-pill" });
  private readonly name = make("span", { class: "nbt-name" });
  private readonly method = make("span", { class: "nbt-dim" });
  private readonly phase = make("span", { class: "nbt-dim nbt-phase" });
  private readonly button = make("button", { type: "button", class: "nbt-stop" }, "Stop");
  private readonly fill = make("div", { class: "nbt-fill" });
  private readonly bar = make("div", { class: "nbt-bar", role: "progressbar", "aria-valuemin": "0", "aria-label": "progress" }, this.fill);
  private readonly tiles = new Map<string, { name: HTMLElement; value: HTMLElement }>();
  private readonly figures = make("div", { class: "nbt-figs" });
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
  private stopping = false;
  private frame = 0;

  constructor(
    private readonly curves: Curves,
    private readonly stop: () => void,
  ) {
    this.theme = new Theme(this.element, () => this.redraw());
    const group = { key: `nbtune-${++groups}`, zoomed: false };
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
      make("header", {}, this.name, this.method, this.pill, this.phase, this.button),
      this.bar,
      this.figures,
      this.errors,
      make("div", { class: "nbt-charts" }, this.loss.element, small),
      this.sampleBox,
      this.notes,
      this.live,
    );
    this.button.addEventListener("click", () => this.pressStop());
    for (const kind of ["keydown", "keyup", "keypress"] as const) this.element.addEventListener(kind, (event) => event.stopPropagation());
    this.clock = setInterval(() => this.tick(), 1000);
  }

  /** Show a state; what is announced is only what a listener waits for. */
  setState(state: State): void {
    const before = this.state;
    this.state = state;
    this.heard = performance.now();
    if (state.status === "stopping" || isOver(state.status)) this.stopping = state.status === "stopping";
    setAttribute(this.element, "aria-label", `Run ${state.name}`);
    say(this.name, state.name);
    say(this.method, state.method);
    this.header(state);
    this.progress(state);
    this.figureTiles(state);
    this.drawNotes(state);
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
    const lost = !isOver(state.status) && silent > SILENT_SECONDS;
    const status = this.stopping ? "stopping" : state.status;
    say(this.pill, status);
    setAttribute(this.pill, "data-status", status);
    say(this.phase, lost ? `no word from the kernel for ${wholeDuration(silent)}` : this.stopping ? "at the next step" : state.phase);
    const off = this.stopping || isOver(state.status);
    setAttribute(this.button, "aria-disabled", String(off));
    say(this.button, this.stopping ? "Stopping…" : "Stop");
    this.button.hidden = isOver(state.status);
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

  private figureTiles(state: State): void {
    const left = state.seconds_left === null ? null : Math.max(0, state.seconds_left - (performance.now() - this.heard) / 1000);
    const trained = state.trainable_parameters === undefined ? "–" : `${count(state.trainable_parameters)} of ${count(state.total_parameters)}`;
    const step = state.total_steps === null ? "–" : `${count(state.step)} / ${count(state.total_steps)}`;
    this.tile("step", "Step", step);
    this.tile("epoch", "Epoch", state.epoch == null ? "–" : state.epoch.toFixed(2));
    this.tile("time", "Time", duration(state.seconds));
    this.tile("left", "Left", isOver(state.status) || left === null ? "–" : wholeDuration(left));
    this.tile("tokens", "Tokens/s", count(state.tokens_per_second));
    this.tile("memory", "Memory", memory(state.memory_bytes));
    this.tile("trained", "Trained", trained);
    this.tile("device", "On", state.device ? `${state.device}, ${state.dtype ?? ""}` : "–");
  }

  private tile(key: string, name: string, value: string): void {
    let tile = this.tiles.get(key);
    if (!tile) {
      tile = { name: make("span", { class: "nbt-dim" }, name), value: make("b") };
      this.tiles.set(key, tile);
      this.figures.append(make("div", {}, tile.name, " ", tile.value));
    }
    say(tile.value, value);
  }

  private drawNotes(state: State): void {
    const items = state.notes.map((note) => message(note.level, note.level === "warning" ? "Warning" : "", note.text));
    const error = state.error ? [message("error", "Error", state.hint ? `${state.error}\n→ ${state.hint}` : state.error)] : [];
    replace(this.notes, items);
    replace(this.errors, error);
  }

  private announce(before: State, state: State): void {
    if (before.status !== state.status) say(this.live, `${state.name}: ${state.status}${state.error ? `, ${state.error}` : ""}`);
    else if (state.dev_loss !== null && before.dev_loss !== state.dev_loss) {
      const score = state.score === null ? "" : `, ${state.metric} ${figure(state.score)}`;
      say(this.live, `step ${state.step}: dev loss ${figure(state.dev_loss)}${score}`);
    }
  }

  private pressStop(): void {
    if (this.button.getAttribute("aria-disabled") === "true" || !this.state) return;
    this.stopping = true;
    this.stop();
    this.header(this.state);
    say(this.live, "stopping at the next step");
  }

  private tick(): void {
    if (!this.state || isOver(this.state.status)) return;
    this.header(this.state);
    this.figureTiles(this.state);
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
