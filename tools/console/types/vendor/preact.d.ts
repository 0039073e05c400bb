export * from "../../bundles/preact.js";
