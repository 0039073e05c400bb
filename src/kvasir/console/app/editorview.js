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
  const conflict = draft.theirs !== undefined;

  const save = async () => {
    const [mistake] = code.mistakes(latest.current.text);
    if (mistake) return setFailure(`This is no JSON yet: ${mistake.message}.`);
    setBusy(true);
    setFailure("");
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
        onClick=${() => keepDraft({ ...draft, text: indented(draft.text), turn: draft.turn + 1, changed: true })}
        disabled=${conflict || code.mistakes(draft.text).length > 0}
      >
        Lay out
      </button>
      <span class="gap"></span>
      <span class="soft">${stays(draft)} <kbd>Ctrl</kbd> <kbd>S</kbd> saves.</span>
    </div>
    ${failure && html`<${Failure} text=${failure} />`}
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
        ? html`<${Merge} draft=${draft} latest=${latest} save=${save} />`
        : html`<${Editor} key=${draft.turn} draft=${draft} latest=${latest} save=${save} />`
    }`;
}

/** What a save keeps. @param {Draft} draft */
function stays({ base, theirs }) {
  if (!base) return "A new key.";
  return theirs === null && hasEnded(base)
    ? "Its end has passed: made again, it has none."
    : "Expiry and metadata stay.";
}

/** @typedef {{ draft: Draft, latest: { current: Draft }, save: () => void }} Props */

const leave = () => document.getElementById("save")?.focus();

/** @param {Props} props */
function Editor({ draft, latest, save }) {
  const parent = useRef(/** @type {HTMLElement | null} */ (null));
  useLayoutEffect(() => {
    const view = code.editor(/** @type {HTMLElement} */ (parent.current), draft.text, "Value", {
      onSave: save,
      onChange: (text) => follow(latest, text()),
      onLeave: leave,
    });
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
function Merge({ draft, latest, save }) {
  const parent = useRef(/** @type {HTMLElement | null} */ (null));
  useLayoutEffect(() => {
    const view = code.merging(/** @type {HTMLElement} */ (parent.current), draft.theirs?.text ?? "", draft.text, {
      onSave: save,
      onChange: (text) => follow(latest, text()),
      onLeave: leave,
    });
    view.b.focus();
    return () => view.destroy();
  }, [draft.theirs]);
  return html`<div class="value merge">
    <div class="sides" aria-hidden="true"><span>Theirs</span><span>Mine</span></div>
    <div ref=${parent} class="code"></div>
  </div>`;
}
