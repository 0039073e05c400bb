export { default } from "../../bundles/uplot.js";
