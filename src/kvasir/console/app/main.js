// The page: who is signed in decides what is on it.

import { effect, render, useEffect, useRef } from "../vendor/preact.js";
import { AccessKeys } from "./accesskeys.js";
import { Accounts } from "./accounts.js";
import { Data } from "./data.js";
import { html } from "./html.js";
import { listenToKeys, openHelp } from "./keyboard.js";
import { listenToLinks } from "./links.js";
import { unsaved } from "./opened.js";
import { Plots } from "./plots.js";
import { fragment, route } from "./route.js";
import { begin, caller, keyName, manages, session, signOut } from "./session.js";
import { SignIn } from "./signin.js";
import { forgetSpaces } from "./spaces.js";
import { SpacesAdmin } from "./spacesadmin.js";
import { closeDialog, Dialogs, Notices, Text } from "./ui.js";
import { askToLose } from "./unsaved.js";
import { followRoute } from "./workspace.js";

function Page() {
  if (!session.value) return html`<${SignIn} />`;
  const { page } = route.value;
  const View = manages.value && page in PAGES ? PAGES[page].view : Data;
  return html`<${Head} /><${View} /><${Notices} /><${Dialogs} />`;
}

/** Views besides the data, for those who administer. @type {Record<string, { title: string, view: () => any }>} */
const PAGES = {
  plots: { title: "Plots", view: Plots },
  access: { title: "Access keys", view: AccessKeys },
  accounts: { title: "Service accounts", view: Accounts },
  spaces: { title: "Spaces", view: SpacesAdmin },
};

/** Where the data was left, to come back to. */
let lastData = "#/";

function Views() {
  const { page } = route.value;
  if (page === "data") lastData = fragment(route.value);
  const nav = useRef(/** @type {HTMLElement | null} */ (null));
  // On a narrow screen it may be out of sight.
  useEffect(() => {
    nav.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [page]);
  if (!manages.value) return null;
  const here = (/** @type {string} */ name) => (page === name ? "page" : undefined);
  return html`<nav ref=${nav} aria-label="Views">
    <a href=${lastData} aria-current=${here("data")}>Data</a>
    ${Object.entries(PAGES).map(([name, { title }]) => html`<a href=${`#/${name}`} aria-current=${here(name)}>${title}</a>`)}
  </nav>`;
}

const LEAVING = { title: "Sign out", label: "Sign out" };

function Head() {
  const who = caller.value;
  return html`<header class="top">
    <a class="home" href="#/">Kvasir</a>
    <${Views} />
    <span class="gap"></span>
    <span class="who" title=${`${who?.name}, organisation ${who?.organisation}`}
      ><${Text} text=${keyName.value} most=${40} /> <i>${who?.role}</i></span
    >
    <button class="icon-button" aria-label="Keyboard help" title="Keyboard help" onClick=${openHelp}>
      <b aria-hidden="true">?</b>
    </button>
    <button id="sign-out" onClick=${() => askToLose(LEAVING, signOut)}>Sign out</button>
  </header>`;
}

addEventListener("beforeunload", (event) => {
  if (unsaved.value.length) event.preventDefault();
});

effect(() => {
  if (session.value) return;
  forgetSpaces();
  closeDialog();
});

// Browsers keep titles in their history: no space and no key is in one.
effect(() => {
  const page = (manages.value && PAGES[route.value.page]?.title) || "Data";
  const title = session.value ? page : "Sign in";
  document.title = `${title} – Kvasir`;
});

listenToKeys();
listenToLinks();
await begin();
followRoute();
const place = /** @type {HTMLElement} */ (document.getElementById("page"));
place.replaceChildren();
render(html`<${Page} />`, place);
