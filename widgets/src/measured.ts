// What is measured of a run: large what one looks for first, small what one looks up, and a thin bar of where a step's time goes.

import { make, say, setAttribute } from "./dom";
import { count, duration, figure, fineDuration, inUse, share, wholeDuration } from "./format";
import { isOver, type Part, type State } from "./state";

const PARTS: readonly Part[] = ["data", "forward", "backward", "optimizer"];
const NOTHING = "–";

export class Measured {
  readonly element = make("div");
  private readonly large = make("div", { class: "nbt-figs" });
  private readonly small = make("div", { class: "nbt-small" });
  private readonly word = make("span");
  private readonly gap = make("p", { class: "nbt-msg", "data-level": "warning", hidden: "" }, make("b", {}, "Warning"), " ", this.word);
  private readonly figures = new Map<string, { box: HTMLElement; value: HTMLElement }>();
  private readonly slices = PARTS.map((part) => make("span", { class: "nbt-slice", "data-part": part }));
  private readonly stack = make("span", { class: "nbt-stack", role: "img" }, ...this.slices);
  private readonly split = make("div", { class: "nbt-split", hidden: "" });
  private readonly words = PARTS.map((part) => make("span", { class: "nbt-part", "data-part": part }));
  private readonly whole = make("span", {});

  constructor() {
    this.split.append(make("span", { class: "nbt-dim" }, "a step "), this.whole, this.stack, ...this.words);
    this.element.append(this.large, this.small, this.split, this.gap);
  }

  /** `heard`: seconds since the state came, by which what is left has shrunk. */
  show(state: State, heard: number): void {
    const over = isOver(state.status);
    const left = state.seconds_left === null || over ? null : Math.max(0, state.seconds_left - (state.status === "paused" ? 0 : heard));
    this.figure(this.large, "Step", state.total_steps === null ? NOTHING : `${count(state.step)} / ${count(state.total_steps)}`, true);
    this.figure(this.large, "Loss", figure(state.loss), true);
    this.figure(this.large, "Dev loss", figure(state.dev_loss), true);
    this.figure(this.large, "score", figure(state.score), true, state.metric ? `Dev ${state.metric}` : "Dev score");
    this.figure(this.large, "Best step", state.best_step === null ? NOTHING : count(state.best_step));
    this.figure(this.large, "Left", left === null ? NOTHING : wholeDuration(left), !over);
    this.smaller(state);
    this.steps(state);
    say(this.word, state.gap_text);
    this.gap.hidden = state.gap_text === "";
  }

  private smaller(state: State): void {
    const trained = state.trainable_parameters === undefined ? NOTHING : `${count(state.trainable_parameters)} of ${count(state.total_parameters)}`;
    const pairs: [string, string][] = [
      ["time", duration(state.seconds)],
      ["epoch", state.epoch == null ? NOTHING : state.epoch.toFixed(2)],
      ["gap, dev less train", figure(state.gap)],
      ["tokens/s", count(state.tokens_per_second)],
      ["fill", share(state.fill)],
      ["memory", inUse(state.memory_bytes, state.expected_memory_bytes)],
      ["skipped updates", state.skipped ? count(state.skipped) : NOTHING],
      ["trained", trained],
      ["on", state.device ? `${state.device}, ${state.dtype ?? ""}` : NOTHING],
    ];
    for (const [name, value] of pairs) this.figure(this.small, name, value);
  }

  /** Four slices of a bar, and the same in words. */
  private steps(state: State): void {
    const seconds = PARTS.map((part) => state.parts[part] ?? 0);
    const whole = seconds.reduce((sum, each) => sum + each, 0);
    this.split.hidden = !(whole > 0);
    if (!(whole > 0)) return;
    say(this.whole, fineDuration(whole));
    const said = PARTS.map((part, index) => `${part} ${share((seconds[index] ?? 0) / whole)}`);
    PARTS.forEach((_, index) => {
      const [slice, word] = [this.slices[index], this.words[index]];
      if (slice) slice.style.width = `${(100 * (seconds[index] ?? 0)) / whole}%`;
      if (word) say(word, said[index] ?? "");
    });
    setAttribute(this.stack, "aria-label", `where the time of a step goes: ${said.join(", ")}`);
  }

  /** A named figure, made when it is first known; `always`: a place is kept for it. */
  private figure(row: HTMLElement, key: string, value: string, always = false, name = key): void {
    let made = this.figures.get(key);
    if (!made) {
      const label = make("span", { class: "nbt-dim" }, name);
      made = { box: make("div", {}, label, " "), value: make("b") };
      made.box.append(made.value);
      row.append(made.box);
      this.figures.set(key, made);
    }
    const label = made.box.firstElementChild;
    if (label) say(label, name);
    say(made.value, value);
    made.box.hidden = value === NOTHING && !always;
  }
}
