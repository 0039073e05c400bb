// What is done with a prefix as a whole: a new key below it, export, import, removing all of it.

import { useEffect, useState } from "../vendor/preact.js";
import { Problem, said } from "./api.js";
import { Buttons, newKey, useWork } from "./changes.js";
import { countBelow, removeBelow } from "./entries.js";
import { counted } from "./format.js";
import { html } from "./html.js";
import { exportBelow } from "./exporting.js";
import { importInto } from "./importing.js";
import { mayWrite } from "./session.js";
import { closeDialog, Dialog, Failure, Icon, KeyText, openDialog, tell } from "./ui.js";

/** @param {{ space: string, prefix: string[] }} props */
export function PrefixActions({ space, prefix }) {
  return html`<button onClick=${() => void exportBelow(space, prefix)}><${Icon} name="download" /> Export</button> ${
      mayWrite.value &&
      html`${
          prefix.length === 0 &&
          html`<button onClick=${() => importInto(space)}><${Icon} name="upload" /> Import</button>`
        }
        <button class="new-key" onClick=${() => newKey(space, prefix)}><${Icon} name="plus" /> New key</button>
        <button class="danger" onClick=${() => deleteBelow(space, prefix)}><${Icon} name="trash" /> Delete all</button>`
    }`;
}

/** @param {string} space @param {string[]} prefix */
export const deleteBelow = (space, prefix) =>
  openDialog(() => html`<${DeleteBelowDialog} space=${space} prefix=${prefix} />`);

/** Counts, shows the number, and deletes exactly so many or nothing. @param {{ space: string, prefix: string[] }} props */
function DeleteBelowDialog({ space, prefix }) {
  const [number, setNumber] = useState(/** @type {number | null} */ (null));
  const [failure, setFailure] = useState("");
  const count = async () => {
    try {
      setNumber(await countBelow(space, prefix));
    } catch (error) {
      setFailure(said(error));
    }
  };
  useEffect(() => void count(), []);
  const work = useWork(async () => {
    try {
      const gone = await removeBelow(space, prefix, number ?? 0);
      closeDialog();
      tell(`${counted(gone, "entry")} deleted.`);
    } catch (error) {
      if (!(error instanceof Problem) || error.status !== 412) throw error;
      setNumber(null);
      await count();
      throw new Error("Nothing was deleted: the number of entries has changed. This is the present one.", {
        cause: error,
      });
    }
  });
  const label = number === null ? "Delete" : `Delete ${counted(number, "entry")}`;
  return html`<${Dialog} title="Delete all below" onSubmit=${work.run} busy=${work.busy}>
    <p>
      ${prefix.length ? html`<${KeyText} parts=${prefix} most=${300} /> and every key below it` : "Every key of this space"}
    </p>
    <p class="number" role="status" id="number">${number === null ? "Counting …" : counted(number, "entry")}</p>
    <p class="soft">They are deleted together, or not at all if their number has changed. This cannot be undone.</p>
    ${failure && html`<${Failure} text=${failure} />`}
    <${Buttons} work=${work} label=${label} danger disabled=${!number} />
  <//>`;
}
