// The page: who is signed in decides what is on it.

import { effect, render } from "../vendor/preact.js";
import { Data } from "./data.js";
import { html } from "./html.js";
import { listenToKeys, openHelp } from "./keyboard.js";
import { unsaved } from "./opened.js";
import { caller, begin, session, signOut } from "./session.js";
import { SignIn } from "./signin.js";
import { forgetSpaces } from "./spaces.js";
import { Dialogs, Notices, Text } from "./ui.js";
import { followRoute } from "./workspace.js";

function Page() {
  if (!session.value) return html`<${SignIn} />`;
  return html`<${Head} /><${Data} /><${Notices} /><${Dialogs} />`;
}

function Head() {
  const who = caller.value;
  return html`<header class="top">
    <a class="home" href="#/">Kvasir</a>
    <span class="gap"></span>
    <span class="who" title=${`organisation ${who?.organisation}`}
      ><${Text} text=${who?.name ?? ""} most=${40} /> <i>${who?.role}</i></span
    >
    <button class="icon-button" aria-label="Keyboard help" title="Keyboard help" onClick=${openHelp}>
      <b aria-hidden="true">?</b>
    </button>
    <button id="sign-out" onClick=${() => void signOut()}>Sign out</button>
  </header>`;
}

addEventListener("beforeunload", (event) => {
  if (unsaved.value.length) event.preventDefault();
});

effect(() => {
  if (!session.value) forgetSpaces();
});

listenToKeys();
await begin();
followRoute();
render(html`<${Page} />`, /** @type {HTMLElement} */ (document.getElementById("page")));
