// Plots.
export { default } from "uplot";
