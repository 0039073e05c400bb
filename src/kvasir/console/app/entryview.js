// The pane of one key: its value as it is stored and what is known of it, or the editor over it.

import { signal, useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { said } from "./api.js";
import { now } from "./clock.js";
import * as code from "./code.js";
import { deleteEntry, editExpiry, editMetadata } from "./changes.js";
import { EditorPane } from "./editorview.js";
import { countBelow } from "./entries.js";
import { ago, bytes, counted, duration, moment, size } from "./format.js";
import { classes, html } from "./html.js";
import { idOf } from "./keys.js";
import { beginDraft, draftOf } from "./opened.js";
import { PrefixActions } from "./prefix.js";
import { go } from "./route.js";
import { mayWrite } from "./session.js";
import { indented } from "./spans.js";
import { backToKeys, copy, Failure, Icon, KeyText, Loading } from "./ui.js";

/** @typedef {import("./opened.js").Opened} Opened */
/** @typedef {import("./entries.js").Entry} Entry */

const close = () => {
  go({ key: null });
  backToKeys();
};

/** @param {{ opened: Opened }} props */
export function EntryPane({ opened }) {
  const { space, key } = opened;
  const entry = opened.entry.value;
  const draft = draftOf(space, key);
  return html`<section class="pane" id="entry" aria-label="Entry">
    <header class="pane-head">
      <button class="icon-button only-narrow" aria-label="Back to the keys" onClick=${close}>
        <${Icon} name="back" />
      </button>
      <h1><${KeyText} parts=${key} most=${400} /></h1>
      <button
        class="icon-button"
        aria-label="Copy the key"
        title="Copy the key"
        onClick=${() => void copy(idOf(key), "Key")}
      >
        <${Icon} name="copy" />
      </button>
      <button class="icon-button not-narrow" aria-label="Close the entry" title="Close" onClick=${close}>
        <${Icon} name="close" />
      </button>
    </header>
    ${
      draft
        ? html`<${EditorPane} key=${idOf(key)} draft=${draft} opened=${opened} />`
        : html`<${Body} opened=${opened} entry=${entry} />`
    }
  </section>`;
}

/** @param {{ opened: Opened, entry: Entry | null | undefined }} props */
function Body({ opened, entry }) {
  if (opened.failure.value)
    return html`<div class="empty">
      <${Failure} text=${opened.failure.value} />
      <button onClick=${() => void opened.load()}>Try again</button>
    </div>`;
  if (entry === undefined) return html`<${Loading} />`;
  return html`<${entry === null ? NoEntry : Value} opened=${opened} entry=${entry} />
    <${Below} key=${idOf(opened.key)} space=${opened.space} prefix=${opened.key} />`;
}

/** @param {{ opened: Opened }} props */
function NoEntry({ opened }) {
  // The buttons of an entry that has just gone have taken the focus with them.
  useEffect(() => void backToKeys(), []);
  return html`<div class=${classes("no-entry", opened.marked.value && "changed")}>
    <p>
      ${opened.marked.value ? "This entry has just been removed." : "There is no entry with exactly this key."}
      ${" "}${
        mayWrite.value &&
        html`<button class="link" onClick=${() => beginDraft(opened.space, opened.key, null)}>Make one</button>`
      }
    </p>
  </div>`;
}

/** Whether values are shown indented; for as long as the page is open, whatever entry. */
const indents = signal(false);

/** @param {{ opened: Opened, entry: Entry }} props */
function Value({ opened, entry }) {
  const text = indents.value ? indented(entry.text) : entry.text;
  return html`<${Facts} entry=${entry} />
    <div class="bar" role="toolbar" aria-label="Entry">
      ${
        mayWrite.value &&
        html`<button class="primary" id="edit" onClick=${() => beginDraft(opened.space, opened.key, entry)}>
            <${Icon} name="edit" /> Edit</button
          ><button onClick=${() => editExpiry(opened, entry)}><${Icon} name="clock" /> Expiry</button
          ><button onClick=${() => editMetadata(opened, entry)}><${Icon} name="tag" /> Metadata</button
          ><button id="delete" class="danger" onClick=${() => void deleteEntry(opened.space, opened.key)}>
            <${Icon} name="trash" /> Delete
          </button>`
      }
      <span class="gap"></span>
      <button
        aria-pressed=${String(indents.value)}
        title="Indent what is shown; what is stored stays"
        onClick=${() => (indents.value = !indents.value)}
      >
        Indent
      </button>
      <button onClick=${() => void copy(entry.text, "Value")}><${Icon} name="copy" /> Copy</button>
    </div>
    <div class=${classes("value", opened.marked.value && "changed")}><${Viewer} text=${text} label="Value" /></div>`;
}

/** @param {{ text: string, label: string }} props */
export function Viewer({ text, label }) {
  const parent = useRef(/** @type {HTMLElement | null} */ (null));
  const view = useRef(/** @type {import("@codemirror/view").EditorView | null} */ (null));
  useLayoutEffect(() => {
    const made = code.viewer(/** @type {HTMLElement} */ (parent.current), text, label);
    view.current = made;
    return () => made.destroy();
  }, []);
  useEffect(() => {
    if (view.current) code.show(view.current, text);
  }, [text]);
  return html`<div ref=${parent} class="code"></div>`;
}

/** @param {{ entry: Entry }} props */
function Facts({ entry }) {
  const age = now.value - Date.parse(entry.created_at);
  return html`<dl class="facts">
    <div>
      <dt>Version</dt>
      <dd><code>${entry.versionstamp}</code></dd>
    </div>
    <div>
      <dt>Created</dt>
      <dd title=${entry.created_at}>${moment(entry.created_at)} <i>${ago(age)}</i></dd>
    </div>
    <div>
      <dt>Expires</dt>
      <dd id="expires"><${Expiry} entry=${entry} /></dd>
    </div>
    <div>
      <dt>Size</dt>
      <dd>${size(bytes(entry.text))}</dd>
    </div>
    ${
      entry.metadata !== null &&
      html`<div class="metadata">
        <dt>Metadata</dt>
        <dd><code>${entry.metadata}</code></dd>
      </div>`
    }
  </dl>`;
}

/** @param {{ entry: Entry }} props */
function Expiry({ entry }) {
  if (entry.expires_at === null) return "never";
  const left = Date.parse(entry.expires_at) - now.value;
  return html`<span title=${entry.expires_at}>${moment(entry.expires_at)}</span>${" "}
    <i class=${left < 60_000 ? "soon" : ""}>${left > 0 ? `in ${duration(left)}` : "has expired"}</i>
    ${entry.refresh !== null && html` <i>reading renews it for ${duration(entry.refresh)}</i>`}`;
}

/** What lies below a key, which is counted only when asked. @param {{ space: string, prefix: string[] }} props */
export function Below({ space, prefix }) {
  const [found, setFound] = useState(/** @type {number | string | null} */ (null));
  const [busy, setBusy] = useState(false);
  const ask = async () => {
    setBusy(true);
    try {
      setFound(await countBelow(space, prefix));
    } catch (error) {
      setFound(said(error));
    }
    setBusy(false);
  };
  return html`<div class="bar below" role="toolbar" aria-label="This key and all below">
    <span class="soft">${prefix.length ? "This key and all below it" : "All keys of the space"}</span>
    <button disabled=${busy} onClick=${ask}>Count</button>
    ${
      found !== null && html`<output id="count">${typeof found === "number" ? counted(found, "entry") : found}</output>`
    }
    <${PrefixActions} space=${space} prefix=${prefix} />
  </div>`;
}
