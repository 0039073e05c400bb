// The editor and its read-only form. A text goes in and comes out character by character as it is: only "\n" ends a
// line, "\r" and U+2028 are characters, and no text is parsed but to find mistakes.

import {
  bracketMatching,
  codeFolding,
  Compartment,
  defaultKeymap,
  drawSelection,
  EditorState,
  EditorView,
  foldEffect,
  foldGutter,
  foldKeymap,
  highlightActiveLine,
  highlightActiveLineGutter,
  highlightSelectionMatches,
  highlightSpecialChars,
  HighlightStyle,
  history,
  historyKeymap,
  indentUnit,
  json,
  keymap,
  linter,
  lineNumbers,
  lintGutter,
  MergeView,
  search,
  searchKeymap,
  syntaxHighlighting,
  syntaxTree,
  tags,
} from "../vendor/codemirror.js";
import { faultOf } from "./spans.js";

const NONCE = document.querySelector('meta[name="style-nonce"]')?.getAttribute("content") ?? "";

const theme = EditorView.theme({
  "&": { height: "100%", color: "var(--ink)", backgroundColor: "var(--paper)", fontSize: "13px" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.55" },
  ".cm-content": { caretColor: "var(--ink)", padding: "8px 0" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  ".cm-gutters": { backgroundColor: "var(--paper)", color: "var(--soft)", border: "none" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "var(--hover)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "var(--chosen)",
  },
  ".cm-selectionMatch": { backgroundColor: "var(--chosen)" },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "var(--chosen)", outline: "1px solid var(--line)" },
  ".cm-foldPlaceholder": { backgroundColor: "var(--sheet)", borderColor: "var(--line)", color: "var(--soft)" },
  ".cm-specialChar": { color: "var(--bad)" },
  ".cm-panels": { backgroundColor: "var(--sheet)", color: "var(--ink)", borderColor: "var(--line)" },
  ".cm-panel input, .cm-panel button": {
    color: "var(--ink)",
    backgroundColor: "var(--paper)",
    backgroundImage: "none",
  },
  ".cm-searchMatch": { backgroundColor: "var(--mark)" },
  ".cm-tooltip": { backgroundColor: "var(--sheet)", borderColor: "var(--line)", color: "var(--ink)" },
  "&.cm-merge-a .cm-changedLine, .cm-deletedChunk": { backgroundColor: "var(--theirs)" },
  "&.cm-merge-b .cm-changedLine": { backgroundColor: "var(--mine)" },
  "&.cm-merge-a .cm-changedText, &.cm-merge-b .cm-changedText": { background: "var(--mark)" },
});

const colours = HighlightStyle.define([
  { tag: tags.propertyName, color: "var(--name)" },
  { tag: tags.string, color: "var(--string)" },
  { tag: tags.number, color: "var(--number)" },
  { tag: [tags.bool, tags.null], color: "var(--literal)" },
  { tag: [tags.separator, tags.brace, tags.squareBracket], color: "var(--soft)" },
]);

// To lay out one line over many takes a browser a second at a mebibyte.
const LONGEST_WRAPPED = 50_000;

const wrapped = new Compartment();

/** @param {string} text */
const wrappingOf = (text) =>
  text.split("\n").some((line) => line.length > LONGEST_WRAPPED) ? [] : EditorView.lineWrapping;

/** @param {string} text */
const wrapping = (text) => wrapped.of(wrappingOf(text));

// What shows nothing, or turns around what follows, besides what CodeMirror knows as such.
const UNSEEN = /[\u00a0\u202a-\u202c\u200c\u200d\u2060-\u2065\u2068\u206a-\u206f\u3164\u{e0001}\u{e0020}-\u{e007f}]/gu;

/** @param {string} label */
const shared = (label) => [
  EditorView.cspNonce.of(NONCE),
  EditorState.lineSeparator.of("\n"),
  EditorView.contentAttributes.of({
    "aria-label": label,
    spellcheck: "false",
    autocorrect: "off",
    autocapitalize: "off",
  }),
  lineNumbers(),
  highlightSpecialChars({ addSpecialChars: UNSEEN }),
  drawSelection(),
  codeFolding(),
  foldGutter(),
  json(),
  syntaxHighlighting(colours),
  bracketMatching(),
  highlightSelectionMatches(),
  search({ top: true }),
  theme,
];

/**
 * Fold the object or array around the cursor. What comes with CodeMirror folds only what has several lines.
 * @param {EditorView} view
 */
function foldAround(view) {
  const { head } = view.state.selection.main;
  let node = syntaxTree(view.state).resolveInner(head, head ? 0 : 1);
  while (node.parent && !/^(Object|Array)$/.test(node.name)) node = node.parent;
  const [from, to] = [node.from + 1, node.to - 1];
  if (!node.parent || to <= from) return false;
  view.dispatch({ effects: foldEffect.of({ from, to }) });
  return true;
}

const folding = [...foldKeymap, { key: "Ctrl-Shift-[", mac: "Cmd-Alt-[", run: foldAround }];

/** @param {string} label */
const reading = (label) => [
  shared(label),
  keymap.of([...searchKeymap, ...folding, ...defaultKeymap]),
  EditorState.readOnly.of(true),
  EditorView.contentAttributes.of({ "aria-readonly": "true" }),
];

/**
 * Typing over a selection: left to Chromium, it would bring a style attribute, which the policy of the page refuses.
 * @param {InputEvent} event
 * @param {EditorView} view
 */
function typeOver(event, view) {
  const { data, inputType, isComposing } = event;
  if (inputType !== "insertText" || data === null || isComposing || view.state.selection.main.empty) return false;
  view.dispatch(view.state.replaceSelection(data), { userEvent: "input.type", scrollIntoView: true });
  return true;
}

/**
 * @param {string} label
 * @param {{ onChange?: (text: () => string) => void, onChecked?: (isJson: boolean) => void, onSave?: () => void,
 *   onLeave?: () => void }} does onChecked: a moment after the last change
 */
const writing = (label, { onChange, onChecked, onSave, onLeave }) => [
  shared(label),
  keymap.of([
    { key: "Mod-s", preventDefault: true, run: () => (onSave?.(), true) },
    { key: "Mod-Enter", preventDefault: true, run: () => (onSave?.(), true) },
    ...searchKeymap,
    ...historyKeymap,
    ...folding,
    ...defaultKeymap,
    // Tab leaves the editor, as everywhere on the page.
    { key: "Escape", run: () => (onLeave ? (onLeave(), true) : false) },
  ]),
  EditorView.domEventHandlers({ beforeinput: typeOver }),
  history(),
  indentUnit.of("  "),
  highlightActiveLine(),
  highlightActiveLineGutter(),
  lintGutter(),
  linter(
    (view) => {
      const found = mistakes(view.state.doc.toString());
      onChecked?.(found.length === 0);
      return found;
    },
    { delay: 250 },
  ),
  EditorView.updateListener.of((update) => {
    if (update.docChanged) onChange?.(() => update.state.doc.toString());
  }),
];

/**
 * Why a text is no JSON, and where. What JSON.parse gives is dropped.
 * @param {string} text
 * @returns {{ from: number, to: number, severity: "error", message: string }[]}
 */
export function mistakes(text) {
  try {
    JSON.parse(text);
    return [];
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const fault = faultOf(text);
    const at = fault < 0 ? text.length : fault;
    const line = text.slice(0, at).split("\n").length;
    const where = text.includes("\n") ? ` in line ${line}` : "";
    const what = at === text.length ? "it ends too early" : `${JSON.stringify(text[at])} is not expected${where}`;
    const plain = text.trim() === "" ? "it is empty" : fault < 0 ? message : what;
    return [{ from: at, to: Math.min(at + 1, text.length), severity: "error", message: plain }];
  }
}

/** @param {HTMLElement} parent @param {string} text @param {string} label */
export function viewer(parent, text, label) {
  return new EditorView({
    parent,
    state: EditorState.create({ doc: text, extensions: [wrapping(text), reading(label)] }),
  });
}

/** Another text in a viewer, which stays where it is scrolled to. @param {EditorView} view @param {string} text */
export function show(view, text) {
  if (view.state.doc.toString() === text) return;
  view.dispatch({
    changes: { from: 0, to: view.state.doc.length, insert: view.state.toText(text) },
    effects: wrapped.reconfigure(wrappingOf(text)),
  });
}

/**
 * @param {HTMLElement} parent
 * @param {import("@codemirror/state").EditorState | string} from a text, or what an earlier editor was left with
 * @param {string} label
 * @param {Parameters<typeof writing>[1]} does
 */
export function editor(parent, from, label, does) {
  const state =
    typeof from === "string"
      ? EditorState.create({ doc: from, extensions: [wrapping(from), writing(label, does)] })
      : from;
  return new EditorView({ parent, state });
}

/**
 * Both versions beside each other: theirs to read, mine to edit, differences marked and takeable one by one.
 * @param {HTMLElement} parent
 * @param {string} theirs
 * @param {string} mine
 * @param {Parameters<typeof writing>[1]} does
 */
export function merging(parent, theirs, mine, does) {
  return new MergeView({
    parent,
    a: { doc: theirs, extensions: [wrapping(theirs), reading("Their version")] },
    b: { doc: mine, extensions: [wrapping(mine), writing("My version", does)] },
    revertControls: "a-to-b",
    highlightChanges: true,
    gutter: true,
    diffConfig: { scanLimit: 500, timeout: 200 },
  });
}
