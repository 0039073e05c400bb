// The editor of a draft, and the merge view when somebody was faster.

import { useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { said, Unreachable } from "./api.js";
import * as code from "./code.js";
import { hasEnded } from "./entries.js";
import { html } from "./html.js";
import { dropDraft, keepDraft, saveDraft } from "./opened.js";
import { indented } from "./spans.js";
import { backToKeys, Failure, tell } from "./ui.js";

/** @typedef {import("./opened.js").Draft} Draft */

/** @param {{ draft: Draft, opened: import("./opened.js").Opened }} props */
export function EditorPane({ draft, opened }) {
  const [failure, setFailure] = useState("");
  const [busy, setBusy] = useState(false);
  const latest = useRef(draft);
  latest.current = draft;
  const checks = useChecks(latest);
  const conflict = draft.theirs !== undefined;

  const save = async () => {
    setFailure("");
    if (!checks.isJson()) return;
    setBusy(true);
    const written = latest.current;
    try {
      const outcome = await saveDraft(written);
      if (outcome === "saved") saved(written);
    } catch (error) {
      const unknown = error instanceof Unreachable ? " It may have been saved or not; saving again finds out." : "";
      setFailure(said(error) + unknown);
    }
    setBusy(false);
  };

  /** @param {Draft} written */
  const saved = (written) => {
    const { base, theirs } = written;
    void opened.load();
    backToKeys();
    if (theirs === null && base && hasEnded(base)) return void tell("Saved without an end: that of before has passed.");
    if (!theirs) return void tell("Saved.");
    tell("Saved over their version.", {
      action: { label: "Open theirs as a draft", run: () => reopen(written, theirs.text) },
    });
  };

  /** @param {Draft} written @param {string} text */
  const reopen = async (written, text) => {
    await opened.load();
    const base = opened.entry.value ?? null;
    keepDraft({ ...written, base, theirs: undefined, turn: written.turn + 1, text, changed: true });
  };

  const useTheirs = () => {
    const mine = latest.current;
    dropDraft(mine);
    void opened.load();
    backToKeys();
    tell("Your version is set aside.", { action: { label: "Take it up again", run: () => keepDraft(mine) } });
  };

  const cancel = () => {
    const mine = latest.current;
    dropDraft(mine);
    backToKeys();
    if (mine.changed && mine.text !== (mine.base?.text ?? ""))
      tell("Your draft is set aside.", { action: { label: "Take it up again", run: () => keepDraft(mine) } });
  };

  const layOut = () => {
    const { current } = latest;
    if (!checks.isJson()) return;
    keepDraft({ ...current, text: indented(current.text), turn: current.turn + 1, changed: true });
  };

  const does = {
    onSave: save,
    onChange: (/** @type {() => string} */ text) => {
      follow(latest, text());
      checks.forget();
    },
    onChecked: checks.tell,
    onLeave: () => document.getElementById("save")?.focus(),
  };

  const newer = opened.entry.value;
  const overtaken =
    !conflict && newer !== undefined && newer?.versionstamp !== draft.base?.versionstamp && draft.base !== null;
  return html`<div class="bar" role="toolbar" aria-label="Draft">
      <button class="primary" id="save" disabled=${busy} onClick=${save}>
        ${conflict ? (draft.theirs ? "Save mine over theirs" : "Make it again") : draft.base ? "Save" : "Create"}
      </button>
      ${
        conflict
          ? html`<button onClick=${useTheirs}>${draft.theirs ? "Use theirs" : "Leave it removed"}</button>`
          : html`<button onClick=${cancel}>Cancel</button>`
      }
      <button
        title="Lay the text out on lines; digits and texts stay as they are"
        onClick=${layOut}
        disabled=${conflict || !checks.passed}
      >
        Lay out
      </button>
      <span class="gap"></span>
      <span class="soft">${stays(draft)} <kbd>Ctrl</kbd> <kbd>S</kbd> saves.</span>
    </div>
    ${(checks.mistake || failure) && html`<${Failure} text=${checks.mistake || failure} />`}
    ${
      overtaken &&
      html`<p class="hint" role="status">
        Somebody has ${newer ? "changed" : "removed"} this entry since you began. Your draft stays as it is; saving
        shows both.
      </p>`
    }
    ${
      conflict &&
      html`<p class="hint" role="alert">
        ${
          draft.theirs
            ? "Somebody was faster. Their version is on the left, yours on the right: take over what you want, then save."
            : "This entry has been removed meanwhile, or has expired. Your text is here still."
        }
      </p>`
    }
    ${
      conflict && draft.theirs
        ? html`<${Merge} draft=${draft} does=${does} />`
        : html`<${Editor} key=${draft.turn} draft=${draft} does=${does} />`
    }`;
}

/**
 * Whether the text is JSON. The pane is drawn again only when that changes, not at each key press.
 * @param {{ current: Draft }} latest
 */
function useChecks(latest) {
  const [passed, tell] = useState(() => code.mistakes(latest.current.text).length === 0);
  const [mistake, setMistake] = useState("");
  /** At this moment, whatever was told last; says why not. */
  const isJson = () => {
    const [found] = code.mistakes(latest.current.text);
    setMistake(found ? `This is no JSON yet: ${found.message}.` : "");
    return !found;
  };
  return { passed, tell, mistake, isJson, forget: () => setMistake("") };
}

/** What a save keeps. @param {Draft} draft */
function stays({ base, theirs }) {
  if (!base) return "A new key.";
  return theirs === null && hasEnded(base)
    ? "Its end has passed: made again, it has none."
    : "Expiry and metadata stay.";
}

/** @typedef {{ draft: Draft, does: Parameters<typeof code.editor>[3] }} Props */

/** @param {Props} props */
function Editor({ draft, does }) {
  const parent = useRef(/** @type {HTMLElement | null} */ (null));
  useLayoutEffect(() => {
    const view = code.editor(/** @type {HTMLElement} */ (parent.current), draft.text, "Value", does);
    view.focus();
    return () => view.destroy();
  }, []);
  return html`<div class="value"><div ref=${parent} class="code"></div></div>`;
}

/** What is typed is kept at once, but draws nothing again. @param {{ current: Draft }} latest @param {string} text */
function follow(latest, text) {
  const { current } = latest;
  current.text = text;
  if (!current.changed) {
    current.changed = true;
    keepDraft(current);
  }
}

/** @param {Props} props */
function Merge({ draft, does }) {
  const parent = useRef(/** @type {HTMLElement | null} */ (null));
  useLayoutEffect(() => {
    const view = code.merging(/** @type {HTMLElement} */ (parent.current), draft.theirs?.text ?? "", draft.text, does);
    view.b.focus();
    return () => view.destroy();
  }, [draft.theirs]);
  return html`<div class="value merge">
    <div class="sides" aria-hidden="true"><span>Theirs</span><span>Mine</span></div>
    <div ref=${parent} class="code"></div>
  </div>`;
}
