export * from "../../bundles/codemirror.js";
