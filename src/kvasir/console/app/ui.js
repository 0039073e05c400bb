// Small pieces that every view uses: icons, texts of strangers, notices and dialogs.

import { signal, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { html } from "./html.js";
import { count } from "./format.js";
import { shown } from "./keys.js";

/** @typedef {import("./html.js").Children} Children */

/** @type {Record<string, string>} paths in a box of 16 by 16 */
const ICONS = {
  right: "M6 3.5 10.5 8 6 12.5",
  plus: "M8 3v10M3 8h10",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9ZM10.5 10.5 14 14",
  store:
    "M2.5 4c0-1 2.5-1.7 5.5-1.7S13.500 3 13.500 4 11 5.700 8 5.700 2.500 5 2.500 4Zm0 0v8c0 1 2.500 1.700 5.500 1.700s5.500-.7 5.500-1.700V4M2.500 8c0 1 2.500 1.700 5.500 1.700S13.500 9 13.500 8",
  application: "M2.500 2.500h4.500v4.500H2.500zM9 2.500h4.500v4.500H9zM2.500 9h4.500v4.500H2.500zM9 9h4.500v4.500H9z",
  session: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2Zm0 2.500V8l2.500 1.800",
  trash: "M3 4.500h10M6.500 4.500V3h3v1.500M4.500 4.500l.6 8.500h5.800l.6-8.500",
  pause: "M5.500 3.500v9M10.500 3.500v9",
  play: "M5 3.300v9.400L12.500 8Z",
  copy: "M5.500 5.500h7v8h-7zM3.500 10.500v-8h7",
  download: "M8 2.500v7.500M4.800 7 8 10.200 11.200 7M3 13.500h10",
  upload: "M8 10.500V3M4.800 6 8 2.800 11.200 6M3 13.500h10",
  close: "m4 4 8 8M12 4l-8 8",
  back: "M10 3.500 5.500 8l4.500 4.500",
  edit: "m3 13 .6-2.800L10.500 3.300l2.200 2.200-6.900 6.900Z",
  clock: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2Zm0 2.500V8l2.500 1.800",
  tag: "M2.500 2.500h5l6 6-5 5-6-6ZM5.500 5.500h.01",
};

/** @param {{ name: string, class?: string }} props */
export function Icon({ name, class: kind = "" }) {
  return html`<svg class=${`icon ${kind}`} viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
    <path
      d=${ICONS[name]}
      fill="none"
      stroke="currentColor"
      stroke-width="1.4"
      stroke-linecap="round"
      stroke-linejoin="round"
    />
  </svg>`;
}

/**
 * A text that somebody has stored, shown as text whatever it has in it.
 * @param {{ text: string, most?: number }} props
 */
export function Text({ text, most = 200 }) {
  if (text === "") return html`<bdi class="odd" title="an empty text">empty</bdi>`;
  const pieces = shown(text, most);
  const rest = text.length - most;
  return html`<bdi
      >${pieces.map((piece) => (piece.odd ? html`<span class="odd">${piece.text}</span>` : piece.text))}</bdi
    >${rest > 0 && html`<span class="odd">… ${count(rest)} more characters</span>`}`;
}

/** @param {{ parts: string[], most?: number }} props */
export function KeyText({ parts, most = 80 }) {
  return html`<span class="key"
    >${parts.map((part, at) => html`${at > 0 && html`<span class="slash">/</span>`}<${Text} text=${part} most=${most} />`)}</span
  >`;
}

// -- notices ----------------------------------------------------------------------------------------------

/** @typedef {{ id: number, text: string, bad: boolean, action?: { label: string, run: () => void } }} Notice */

/** @type {import("@preact/signals").Signal<Notice[]>} */
const notices = signal([]);
let lastNotice = 0;

/** @param {string} text @param {{ bad?: boolean, action?: Notice["action"] }} [more] */
export function tell(text, { bad = false, action } = {}) {
  const id = (lastNotice += 1);
  notices.value = [...notices.value.slice(-49), { id, text, bad, action }];
  // What offers something stays until it is taken or closed.
  if (!action) setTimeout(() => dismiss(id), bad ? 12_000 : 5_000);
  return id;
}

/** @param {number} id */
const dismiss = (id) => (notices.value = notices.value.filter((notice) => notice.id !== id));

export const forgetNotices = () => (notices.value = []);

// More than these are there still, but only shown when asked for.
const SHOWN = 2;

export function Notices() {
  const [all, setAll] = useState(false);
  const hidden = all ? 0 : Math.max(0, notices.value.length - SHOWN);
  if (all && notices.value.length <= SHOWN) setAll(false);
  return html`<div class="notices" role="region" aria-label="Notices" aria-live="polite">
    ${hidden > 0 && html`<button class="earlier" onClick=${() => setAll(true)}>${hidden} earlier</button>`}
    ${notices.value.slice(hidden).map(
      (notice) =>
        html`<div key=${notice.id} class=${notice.bad ? "notice bad" : "notice"}>
          <span>${notice.text}</span>
          ${
            notice.action &&
            html`<button
              class="link"
              onClick=${() => {
                dismiss(notice.id);
                notice.action?.run();
              }}
            >
              ${notice.action.label}
            </button>`
          }
          <button class="icon-button" aria-label="Close the notice" onClick=${() => dismiss(notice.id)}>
            <${Icon} name="close" />
          </button>
        </div>`,
    )}
  </div>`;
}

/** Whether somebody is to go on among keys that are not there yet. */
let awaited = false;

/** Whoever has left what they were in goes on among the keys, once they are there. */
export const backToKeys = () =>
  setTimeout(() => {
    awaited = false;
    const { activeElement } = document;
    if (activeElement && activeElement !== document.body) return;
    const keys = /** @type {HTMLElement | null} */ (document.querySelector("#tree, #list:not([hidden])"));
    keys?.focus();
    awaited = keys === null;
  });

/** The keys are there. */
export const keysCame = () => awaited && backToKeys();

// -- dialogs ----------------------------------------------------------------------------------------------

/** The dialog that is open, made by a function. @type {import("@preact/signals").Signal<(() => any) | null>} */
export const dialog = signal(null);

/** @param {() => any} content */
export const openDialog = (content) => (dialog.value = content);
export const closeDialog = () => (dialog.value = null);

export function Dialogs() {
  return dialog.value && html`<${dialog.value} />`;
}

/**
 * A modal dialog, whose title names it. It is closed by Escape.
 * @param {{ title: string, children?: Children, onSubmit?: () => void, wide?: boolean, busy?: boolean }} props
 */
export function Dialog({ title, children, onSubmit, wide = false, busy = false }) {
  const element = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useLayoutEffect(() => {
    const shown = element.current;
    shown?.showModal();
    // Gives the focus back to where it was.
    return () => {
      shown?.close();
      backToKeys();
    };
  }, []);
  return html`<dialog
    ref=${element}
    class=${wide ? "wide" : ""}
    aria-labelledby="dialog-title"
    onCancel=${(/** @type {Event} */ event) => {
      event.preventDefault();
      if (!busy) closeDialog();
    }}
  >
    <form
      onSubmit=${(/** @type {Event} */ event) => {
        event.preventDefault();
        onSubmit?.();
      }}
    >
      <h2 id="dialog-title">${title}</h2>
      ${children}
    </form>
  </dialog>`;
}

/** What went wrong, where it is read out at once. @param {{ text: string }} props */
export const Failure = ({ text }) => html`<p class="failure" role="alert">${text}</p>`;

/** @param {{ label?: string }} props */
export const Loading = ({ label = "Loading" }) => html`<p class="loading" role="status">${label}<span>…</span></p>`;

/** @param {string} text @param {string} what */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    tell(`${what} copied.`);
  } catch {
    tell("The browser does not let this page copy. Select the text and copy it yourself.", { bad: true });
  }
}
