// What is not saved, and the question before somebody's session takes it away.

import { Buttons, useWork } from "./changes.js";
import { counted } from "./format.js";
import { html } from "./html.js";
import { unsaved } from "./opened.js";
import { closeDialog, Dialog, openDialog } from "./ui.js";

/** How many drafts there are, in words. */
export function saidUnsaved() {
  const number = unsaved.value.length;
  return `${counted(number, "draft")} that ${number === 1 ? "is" : "are"} not saved`;
}

/**
 * Do what ends a session: at once if nothing is lost by it, or once that is agreed to.
 * @param {{ title: string, label: string, more?: string }} words
 * @param {() => Promise<void>} does
 */
export function askToLose(words, does) {
  if (unsaved.value.length) openDialog(() => html`<${Ask} ...${words} does=${does} />`);
  else void does();
}

/** @param {{ title: string, label: string, more?: string, does: () => Promise<void> }} props */
function Ask({ title, label, more = "", does }) {
  const work = useWork(async () => {
    closeDialog();
    await does();
  });
  return html`<${Dialog} title=${title} onSubmit=${work.run} busy=${work.busy}>
    <p>${saidUnsaved()} will be gone. ${more}</p>
    <${Buttons} work=${work} label=${`${label}, drop what is not saved`} danger />
  <//>`;
}
