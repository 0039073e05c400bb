// What changes one entry besides its value: removing it, its life, its metadata; and making a new key.

import { useRef, useState } from "../vendor/preact.js";
import { isAbort, Problem, said } from "./api.js";
import { now } from "./clock.js";
import * as code from "./code.js";
import * as entries from "./entries.js";
import { duration } from "./format.js";
import { html } from "./html.js";
import { keyText, parseKey } from "./keys.js";
import { beginDraft } from "./opened.js";
import { go } from "./route.js";
import { closeDialog, Dialog, Failure, KeyText, openDialog, tell } from "./ui.js";
import { TextField } from "./fields.js";

/** @typedef {import("./keys.js").Parts} Parts */
/** @typedef {import("./opened.js").Opened} Opened */
/** @typedef {import("./entries.js").Entry} Entry */

// -- removing ---------------------------------------------------------------------------------------------

/** Ask, remove the version that is shown, and offer to undo it. @param {string} space @param {Parts} key */
export async function deleteEntry(space, key) {
  let entry;
  try {
    entry = await entries.read(space, key);
  } catch (error) {
    return void tell(said(error), { bad: true });
  }
  if (!entry) return void tell("There is no entry with exactly this key.");
  const found = entry;
  openDialog(() => html`<${DeleteDialog} space=${space} entry=${found} />`);
}

/** @param {{ space: string, entry: Entry }} props */
function DeleteDialog({ space, entry }) {
  const work = useWork(async () => {
    try {
      await entries.remove(space, entry);
    } catch (error) {
      if (error instanceof Problem && error.status === 412)
        throw new Error("It has changed since. Close this and look at it again.", { cause: error });
      throw error;
    }
    closeDialog();
    tell("1 entry deleted.", { action: { label: "Undo", run: () => void undo(space, entry) } });
  });
  return html`<${Dialog} title="Delete 1 entry" onSubmit=${work.run} busy=${work.busy}>
    <p><${KeyText} parts=${entry.key} most=${300} /></p>
    <p class="soft">Keys below it stay.</p>
    <${Buttons} work=${work} label="Delete 1 entry" danger />
  <//>`;
}

/** @param {string} space @param {Entry} entry */
async function undo(space, entry) {
  try {
    const ended = entries.hasEnded(entry);
    await entries.restore(space, entry);
    tell(ended ? "The entry is back, without its end, which has passed." : "The entry is back.");
  } catch (error) {
    if (isAbort(error)) return;
    const back = error instanceof Problem && error.status === 412;
    tell(back ? "Not undone: somebody has made this key anew." : `Not undone: ${said(error)}`, {
      bad: true,
      action: back ? undefined : { label: "Try again", run: () => void undo(space, entry) },
    });
  }
}

// -- life -------------------------------------------------------------------------------------------------

/** @param {Opened} opened @param {Entry} entry */
export const editExpiry = (opened, entry) =>
  openDialog(() => html`<${ExpiryDialog} opened=${opened} entry=${entry} />`);

/** The end of a life, as `atomic` takes it; {} for none. @param {string} kind @param {string} amount @param {string} unit @param {string} at */
function endOf(kind, amount, unit, at) {
  if (kind === "never") return {};
  if (kind === "in") {
    if (!/^[1-9]\d{0,11}$/.test(amount)) throw new Error("Write how long it shall live, as a whole number above 0.");
    return { ttl: amount + unit };
  }
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) throw new Error("Choose the day and time of its end.");
  if (date.getTime() <= now.value) throw new Error("This end is in the past.");
  return { expires_at: date.toISOString() };
}

/** The fields of a life, and its end as they say it. */
export function useLife(kind = "never", amount = "24", unit = "h") {
  const [life, setLife] = useState({ kind, amount, unit, at: "" });
  const set = (/** @type {Partial<typeof life>} */ changes) => setLife({ ...life, ...changes });
  /** @param {string} value @param {string} label @param {any} [more] */
  const choice = (value, label, more) =>
    html`<div class="choice">
      <label
        ><input
          type="radio"
          name="life"
          value=${value}
          checked=${life.kind === value}
          onChange=${() => set({ kind: value })}
        />
        ${label}</label
      >
      ${life.kind === value && more}
    </div>`;
  const fields = html`<fieldset>
    <legend>Expiry</legend>
    ${choice("never", "never")}
    ${choice(
      "in",
      "in",
      html`<input
          aria-label="How long"
          inputmode="numeric"
          size="6"
          value=${life.amount}
          onInput=${(/** @type {any} */ event) => set({ amount: event.currentTarget.value })}
        />
        <select
          aria-label="Unit"
          value=${life.unit}
          onChange=${(/** @type {any} */ event) => set({ unit: event.currentTarget.value })}
        >
          <option value="s">seconds</option>
          <option value="m">minutes</option>
          <option value="h">hours</option>
          <option value="d">days</option>
        </select>`,
    )}
    ${choice(
      "at",
      "at",
      html`<input
        type="datetime-local"
        step="1"
        aria-label="Day and time"
        value=${life.at}
        onInput=${(/** @type {any} */ event) => set({ at: event.currentTarget.value })}
      />`,
    )}
  </fieldset>`;
  return { fields, end: () => endOf(life.kind, life.amount, life.unit, life.at) };
}

/** @param {{ opened: Opened, entry: Entry }} props */
function ExpiryDialog({ opened, entry }) {
  const life = useLife(entry.expires_at ? "in" : "never");
  const work = useWork(async () => {
    const end = life.end();
    await entries.touch(opened.space, entry.key, Object.keys(end).length ? end : { expires_at: null });
    closeDialog();
    await opened.load();
    tell("Expiry changed.");
  });
  return html`<${Dialog} title="Expiry" onSubmit=${work.run} busy=${work.busy}>
    ${
      entry.refresh !== null &&
      html`<p class="soft">Reading renews it for ${duration(entry.refresh)}; this sets only its next end.</p>`
    }
    ${life.fields}
    <${Buttons} work=${work} label="Set expiry" />
  <//>`;
}

// -- metadata ---------------------------------------------------------------------------------------------

/** @param {Opened} opened @param {Entry} entry */
export const editMetadata = (opened, entry) =>
  openDialog(() => html`<${MetadataDialog} opened=${opened} entry=${entry} />`);

/** A JSON object, or "" for none. @param {string} text */
function metadataOf(text) {
  if (text.trim() === "") return null;
  const [mistake] = code.mistakes(text);
  if (mistake) throw new Error(`The metadata is no JSON: ${mistake.message}.`);
  if (!text.trim().startsWith("{")) throw new Error('Metadata is a JSON object, as {"by": "me"}.');
  return text;
}

/** @param {{ opened: Opened, entry: Entry }} props */
function MetadataDialog({ opened, entry }) {
  const [text, setText] = useState(entry.metadata ?? "");
  const work = useWork(async () => {
    const metadata = metadataOf(text);
    try {
      await entries.set(opened.space, entry.key, entry.text, entry.versionstamp, { metadata, keep: ["expiry"] });
    } catch (error) {
      if (error instanceof Problem && error.status === 412)
        throw new Error("The entry has changed since. Copy what you wrote, close this and look at it again.", {
          cause: error,
        });
      throw error;
    }
    closeDialog();
    await opened.load();
    tell("Metadata changed.");
  });
  return html`<${Dialog} title="Metadata" onSubmit=${work.run} busy=${work.busy} wide>
    <${TextField} label="A JSON object; empty for none" lines=${8} mono value=${text} onInput=${setText} />
    <${Buttons} work=${work} label="Save metadata" />
  <//>`;
}

// -- a new key --------------------------------------------------------------------------------------------

/** @param {string} space @param {Parts} prefix */
export const newKey = (space, prefix) => openDialog(() => html`<${NewKeyDialog} space=${space} prefix=${prefix} />`);

/** @param {{ space: string, prefix: Parts }} props */
function NewKeyDialog({ space, prefix }) {
  const [text, setText] = useState(prefix.length ? startText(prefix) : "");
  const [metadata, setMetadata] = useState("");
  const life = useLife();
  const work = useWork(async () => {
    const key = parseKey(text);
    if (key.length === 0) throw new Error("Write the key: parts with slashes between them.");
    const more = { ...life.end(), metadata: metadataOf(metadata) };
    const existing = await entries.read(space, key);
    if (existing) throw new Error("There is an entry with this key. Open it to change it.");
    closeDialog();
    beginDraft(space, key, null, "", more);
    go({ key });
  });
  return html`<${Dialog} title="New key" onSubmit=${work.run} busy=${work.busy}>
    <${TextField}
      label="Key"
      mono
      value=${text}
      onInput=${setText}
      hint='Parts with slashes between, or any key as ["a/b", ""].'
    />
    ${life.fields}
    <${TextField} label="Metadata, a JSON object (optional)" lines=${2} mono value=${metadata} onInput=${setMetadata} />
    <${Buttons} work=${work} label="Write its value" />
  <//>`;
}

/** @param {Parts} prefix */
function startText(prefix) {
  const text = keyText(prefix);
  return text.startsWith("[") ? `${text.slice(0, -1)}, ""]` : `${text}/`;
}

// -- what the dialogs share -------------------------------------------------------------------------------

/** Something that takes time and may fail. @param {() => Promise<void>} does */
export function useWork(does) {
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState("");
  const running = useRef(false);
  const run = async () => {
    if (running.current) return;
    running.current = true;
    setBusy(true);
    setFailure("");
    try {
      await does();
    } catch (error) {
      setFailure(said(error));
    }
    running.current = false;
    setBusy(false);
  };
  return { busy, failure, run, forget: () => setFailure("") };
}

/** @param {{ work: ReturnType<typeof useWork>, label: string, danger?: boolean, disabled?: boolean }} props */
export function Buttons({ work, label, danger = false, disabled = false }) {
  return html`${work.failure && html`<${Failure} text=${work.failure} />`}
    <div class="buttons">
      <button type="button" disabled=${work.busy} onClick=${closeDialog}>Cancel</button>
      <button type="submit" class=${danger ? "danger solid" : "primary"} disabled=${work.busy || disabled}>
        ${label}
      </button>
    </div>`;
}
