// Bundles what the Python package ships into its static folder. The same sources give the same bytes.
import { build } from "esbuild";

const shared = { outdir: "nbtune_widgets/static", bundle: true, minify: true, charset: "utf8", legalComments: "none", logLevel: "warning" };
const notice = "/* Holds uPlot, (c) Leon Sorokin, MIT license. Built from widgets/src: do not edit. */";

await build({ ...shared, entryPoints: { panel: "src/panel.ts" }, format: "esm", target: "es2022", banner: { js: notice, css: notice } });
await build({ ...shared, entryPoints: { content: "src/content.css" } });
