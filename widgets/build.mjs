// Bundles src/panel.ts and its style into the two files that the Python package ships. The same sources give the same bytes.
import { build } from "esbuild";

await build({
  entryPoints: { panel: "src/panel.ts" },
  outdir: "nbtune_widgets/static",
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  charset: "utf8",
  legalComments: "none",
  banner: {
    js: "/* nbtune panel. Holds uPlot, (c) Leon Sorokin, MIT license. Built from widgets/src: do not edit. */",
    css: "/* nbtune panel. Holds uPlot's style, (c) Leon Sorokin, MIT license. Built from widgets/src: do not edit. */",
  },
  logLevel: "warning",
});
