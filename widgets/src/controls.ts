// The buttons that steer a run. A pressed one says so at once, and until the kernel tells that it took effect or was refused.

import { make, say, setAttribute } from "./dom";
import { rate } from "./format";
import { type Action, isOver, type Request, type State } from "./state";

/** What a button says, and what it says while one waits for its effect. */
const WORDS: Record<Action, [string, string]> = {
  pause: ["Pause", "Pausing…"],
  resume: ["Resume", "Resuming…"],
  stop: ["Stop", "Stopping…"],
  evaluate: ["Evaluate now", "Evaluating…"],
  sample: ["Sample now", "Sampling…"],
  checkpoint: ["Save now", "Saving…"],
  set: ["Set", "Setting…"],
};
const TITLES: Partial<Record<Action, string>> = {
  evaluate: "look at dev after this step",
  sample: "answer some dev rows after this step",
  checkpoint: "write a checkpoint after this step",
};
let panels = 0;

interface Pressed {
  done: number;
  refused: number;
}

export class Controls {
  readonly bar = make("div", { class: "nbt-controls", role: "group", "aria-label": "controls" });
  readonly more = make("div", { class: "nbt-more", role: "group", "aria-label": "more controls", hidden: "" });
  private readonly turn = this.button("pause");
  private readonly stop = this.button("stop");
  private readonly now = (["evaluate", "sample", "checkpoint"] as const).map((action) => [action, this.button(action)] as const);
  private readonly fold = make("button", { type: "button", "aria-expanded": "false" }, "More");
  private readonly rate = make("input", { type: "text", inputmode: "decimal", size: "8", autocomplete: "off", spellcheck: "false" });
  private readonly halve = make("button", { type: "button", title: "half of it (↓)", "aria-label": "half the learning rate" }, "÷2");
  private readonly double = make("button", { type: "button", title: "twice as much (↑)", "aria-label": "double the learning rate" }, "×2");
  private readonly set = this.button("set");
  private readonly answer = make("span", { class: "nbt-answer", role: "status" });
  private readonly pressed = new Map<Action, Pressed>();
  private state: State | null = null;
  private mistake = "";
  private typed = "";

  constructor(
    private readonly send: (request: Request) => void,
    private readonly changed: () => void,
  ) {
    const id = `nbt-more-${++panels}`;
    this.more.id = id;
    this.rate.id = `${id}-rate`;
    this.fold.setAttribute("aria-controls", id);
    this.bar.append(this.turn, this.stop, this.fold);
    const field = make("span", { class: "nbt-field" }, make("label", { for: this.rate.id }, "Peak learning rate"), this.rate, this.halve, this.double, this.set);
    this.more.append(...this.now.map(([, button]) => button), field, this.answer);
    this.turn.addEventListener("click", () => this.press(this.turnAction()));
    this.stop.addEventListener("click", () => this.press("stop"));
    for (const [action, button] of this.now) button.addEventListener("click", () => this.press(action));
    this.fold.addEventListener("click", () => this.unfold());
    this.set.addEventListener("click", () => this.setRate());
    this.halve.addEventListener("click", () => this.scale(0.5));
    this.double.addEventListener("click", () => this.scale(2));
    this.rate.addEventListener("keydown", (event) => this.key(event));
  }

  /** Whether it was asked for, here or in another view, and is not done yet. */
  waits(action: Action): boolean {
    return this.pressed.has(action) || (this.state?.asked ?? []).includes(action);
  }

  show(state: State): void {
    const refused = this.state !== null && state.refused > this.state.refused;
    this.state = state;
    for (const [action, then] of this.pressed) {
      const done = (state.controls[action] ?? 0) > then.done;
      if (done && action === "set" && this.rate.value === this.typed) this.rate.value = "";
      if (done || state.refused > then.refused || isOver(state.status)) this.pressed.delete(action);
    }
    if (refused) this.open(true); // a refusal must not stand in a folded row
    this.draw();
  }

  private draw(): void {
    const state = this.state;
    if (!state) return;
    const over = isOver(state.status);
    this.bar.hidden = over;
    if (over) this.more.hidden = true;
    this.label(this.stop, "stop", over || state.status === "stopping");
    this.label(this.turn, this.turnAction(), !this.goes());
    for (const [action, button] of this.now) this.label(button, action, !this.goes());
    this.label(this.set, "set", !this.goes());
    for (const button of [this.halve, this.double]) setAttribute(button, "aria-disabled", String(!this.goes()));
    setAttribute(this.rate, "placeholder", rate(state.peak_rate));
    this.rate.readOnly = !this.goes();
    const told = this.waits("set") ? null : state.answer;
    const text = this.mistake || (told ? [told.text, told.hint && `→ ${told.hint}`].filter(Boolean).join("\n") : "");
    say(this.answer, text);
    setAttribute(this.answer, "data-level", this.mistake ? "error" : (told?.level ?? "info"));
  }

  /** Steering needs a run that takes steps, or that is paused between two. */
  private goes(): boolean {
    const status = this.state?.status;
    return (status === "running" || status === "paused") && !this.waits("stop");
  }

  private turnAction(): "pause" | "resume" {
    return this.state?.status === "paused" ? "resume" : "pause";
  }

  private button(action: Action): HTMLButtonElement {
    const title = TITLES[action];
    return make("button", { type: "button", "data-action": action, ...(title ? { title } : {}) }, WORDS[action][0]);
  }

  private label(button: HTMLButtonElement, action: Action, off: boolean): void {
    const waits = this.waits(action);
    say(button, WORDS[action][waits ? 1 : 0]);
    setAttribute(button, "data-action", action);
    setAttribute(button, "aria-disabled", String(off || waits));
  }

  private press(action: Action, values: Partial<Request> = {}): void {
    if (!this.state || this.waits(action) || (action !== "stop" && !this.goes())) return;
    if (action === "stop" && this.stop.getAttribute("aria-disabled") === "true") return;
    this.pressed.set(action, { done: this.state.controls[action] ?? 0, refused: this.state.refused });
    this.send({ type: action, ...values });
    this.draw();
    this.changed();
  }

  private setRate(): void {
    this.typed = this.rate.value;
    const text = this.typed.trim();
    const value = Number(text);
    this.mistake = text !== "" && Number.isFinite(value) ? "" : `${text ? `${text} is` : "there is"} no number\n→ write it as 2e-4 or 0.0002`;
    if (this.mistake) this.draw();
    else this.press("set", { learning_rate: value });
  }

  private scale(factor: number): void {
    if (!this.goes()) return;
    const value = this.rate.value.trim() === "" ? this.state?.peak_rate : Number(this.rate.value);
    if (typeof value === "number" && Number.isFinite(value)) this.rate.value = String(Number((value * factor).toPrecision(3)));
  }

  private key(event: KeyboardEvent): void {
    if (event.key === "Enter") this.setRate();
    else if (event.key === "ArrowUp") this.scale(2);
    else if (event.key === "ArrowDown") this.scale(0.5);
    else return;
    event.preventDefault();
  }

  private unfold(): void {
    this.open(this.more.hidden);
    if (!this.more.hidden) this.now[0]?.[1].focus();
  }

  private open(wide: boolean): void {
    this.more.hidden = !wide;
    setAttribute(this.fold, "aria-expanded", String(wide));
  }
}
