// The anywidget's module: the model's traits and messages on one side, views on the other.
// Curves live with the model, so that several views of one run share them and none misses a message.

import "uplot/dist/uPlot.min.css";
import "./panel.css";

import { Curves } from "./curves";
import type { Traits } from "./state";
import { View } from "./view";

interface Model {
  get<Key extends keyof Traits>(key: Key): Traits[Key];
  on(event: string, callback: (...values: never[]) => void): void;
  off(event: string, callback: (...values: never[]) => void): void;
  send(content: unknown): void;
}

interface Message {
  type: string;
  seq: number;
}

const PATIENCE_MS = 1000;

export default (): unknown => {
  const curves = new Curves();
  const views = new Set<View>();
  let asked = 0;

  const draw = (): void => {
    for (const view of views) view.drawCurves();
  };
  const ask = (model: Model): void => {
    const now = performance.now();
    if (asked && now - asked < PATIENCE_MS) return;
    asked = now;
    model.send({ type: "snapshot" });
  };

  return {
    initialize({ model }: { model: Model }): void {
      const take = (): void => {
        if (curves.replace(model.get("history"))) draw();
      };
      take();
      model.on("change:history", take);
      model.on("msg:custom", (message: Message, buffers: DataView[]) => {
        const [bytes] = buffers;
        if (bytes === undefined) return;
        const whole = message.type === "snapshot" ? curves.replace(bytes) : curves.append(bytes);
        if (!whole && message.type === "append") ask(model);
        draw();
      });
      model.on("change:state", () => {
        const state = model.get("state");
        if (state.seq > curves.seq) ask(model);
        for (const view of views) view.setState(state);
      });
      model.on("change:samples", () => {
        for (const view of views) view.setSamples(model.get("samples"));
      });
    },

    render({ model, el }: { model: Model; el: HTMLElement }): () => void {
      const view = new View(curves, (request) => model.send(request));
      views.add(view);
      el.append(view.element);
      view.setState(model.get("state"));
      view.setSamples(model.get("samples"));
      view.drawCurves();
      model.send({ type: "ready" });
      return () => {
        views.delete(view);
        view.dispose();
      };
    },
  };
};
