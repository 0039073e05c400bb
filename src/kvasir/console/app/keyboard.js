// Keys that work everywhere on the page, and the help that lists all of them.

import { html } from "./html.js";
import { closeDialog, Dialog, dialog, openDialog } from "./ui.js";

/** @type {[string[], string][]} */
const HELP = [
  [["/"], "go to a prefix or key"],
  [["↑", "↓"], "move in the tree or list"],
  [["→", "←"], "open and close a part of the tree"],
  [["Home", "End", "PgUp", "PgDn"], "move far"],
  [["Enter"], "show the entry"],
  [["Space", "Ctrl A"], "select in the list"],
  [["Delete"], "delete the entry, or what is selected in the list"],
  [["e"], "edit the entry that is shown"],
  [["n"], "new key"],
  [["Ctrl S"], "save"],
  [["Ctrl Shift [", "]"], "fold and unfold the object or array at the cursor"],
  [["Esc"], "leave the editor or the box, close a dialog"],
  [["?"], "this help"],
];

export const openHelp = () => openDialog(() => html`<${Help} />`);

const Help = () =>
  html`<${Dialog} title="Keyboard" onSubmit=${closeDialog}>
    <dl class="help">
      ${HELP.map(
        ([names, text]) =>
          html`<div>
            <dt>${names.map((name) => html`<kbd>${name}</kbd> `)}</dt>
            <dd>${text}</dd>
          </div>`,
      )}
    </dl>
    <p class="soft"><a href="/docs/v1">API reference</a></p>
    <div class="buttons"><button class="primary" autofocus>Close</button></div>
  <//>`;

/** @param {string} selector */
const press = (selector) => {
  const found = /** @type {HTMLElement | null} */ (document.querySelector(selector));
  found?.[found instanceof HTMLInputElement ? "focus" : "click"]();
  return Boolean(found);
};

/** @type {Record<string, () => boolean>} */
const KEYS = {
  "/": () => press("#jump"),
  e: () => press("#edit"),
  n: () => press(".new-key"),
  Delete: () => press("#delete"),
  "?": () => (openHelp(), true),
};

export function listenToKeys() {
  addEventListener("keydown", (event) => {
    const { target } = event;
    if ((event.ctrlKey || event.metaKey) && event.key === "s") {
      event.preventDefault();
      if (!dialog.value) press("#save");
      return;
    }
    // The tree and the list have taken what is for them.
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || dialog.value) return;
    const writes =
      target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
    if (writes && !(target instanceof HTMLInputElement && target.type === "checkbox")) return;
    if (KEYS[event.key]?.()) event.preventDefault();
  });
}
