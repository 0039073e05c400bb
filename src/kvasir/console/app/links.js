// One-time links that come while the page is open: pasted into its address, as a rule.

import { Buttons, useWork } from "./changes.js";
import { counted } from "./format.js";
import { html } from "./html.js";
import { drafts, unsaved } from "./opened.js";
import { onLink } from "./route.js";
import { exchange, notByLink, refusal, session } from "./session.js";
import { closeDialog, Dialog, openDialog, tell } from "./ui.js";

export const listenToLinks = () =>
  onLink((code) => {
    if (session.value && unsaved.value.length) openDialog(() => html`<${Ask} code=${code} />`);
    else void follow(code);
  });

/** @param {string} code @param {() => void} [accepted] */
async function follow(code, accepted) {
  try {
    await exchange(code, accepted);
  } catch (error) {
    if (session.value) tell(notByLink(error), { bad: true });
    else refusal.value = notByLink(error);
  }
}

/** Whoever else is signed in begins without the drafts of the one before. @param {{ code: string }} props */
function Ask({ code }) {
  const number = unsaved.value.length;
  const work = useWork(async () => {
    closeDialog();
    await follow(code, () => (drafts.value = new Map()));
  });
  return html`<${Dialog} title="Sign in by this link" onSubmit=${work.run} busy=${work.busy}>
    <p>
      The page begins anew. ${counted(number, "draft")} that ${number === 1 ? "is" : "are"} not saved will be gone. A
      link is good for a minute from when it was made.
    </p>
    <${Buttons} work=${work} label="Sign in, drop what is not saved" danger />
  <//>`;
}
