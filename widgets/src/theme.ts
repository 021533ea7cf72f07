// Light or dark as the page around is now, and the colours that a canvas must be told.

export type Ink = "fg" | "grid" | "a" | "b" | "c" | "d";

export class Theme {
  private readonly probe = document.createElement("span");
  private readonly stop = new AbortController();
  private readonly observer = new MutationObserver(() => this.soon());
  // a view is often drawn before it is in the page, where it has no colours yet
  private readonly resized = new ResizeObserver(() => this.soon());
  private pending = 0;

  constructor(
    private readonly root: HTMLElement,
    private readonly changed: () => void,
  ) {
    this.probe.hidden = true;
    root.append(this.probe);
    for (const element of [document.documentElement, document.body]) {
      this.observer.observe(element, { attributes: true, attributeFilter: ["class", "style", "data-theme", "data-jp-theme-name", "data-jp-theme-light", "data-vscode-theme-id"] });
    }
    const options = { signal: this.stop.signal };
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", () => this.soon(), options);
    }
    // JupyterLab names its new theme before that theme's style sheet is there
    document.addEventListener("load", (event) => event.target instanceof HTMLLinkElement && this.soon(), { ...options, capture: true });
    this.resized.observe(root);
    this.measure();
  }

  ink(name: Ink): string {
    this.probe.style.color = `var(--nbt-${name})`;
    return getComputedStyle(this.probe).color;
  }

  dispose(): void {
    this.observer.disconnect();
    this.resized.disconnect();
    this.stop.abort();
    clearTimeout(this.pending);
  }

  private soon(): void {
    clearTimeout(this.pending);
    this.pending = setTimeout(() => {
      this.measure();
      this.changed();
    }, 60);
  }

  /** Text lighter than middle grey means a dark page, whoever set its colours. */
  private measure(): void {
    const [red = 0, green = 0, blue = 0] = (this.ink("fg").match(/[\d.]+/g) ?? []).map(Number);
    this.root.toggleAttribute("data-dark", 0.2126 * red + 0.7152 * green + 0.0722 * blue > 128);
  }
}
