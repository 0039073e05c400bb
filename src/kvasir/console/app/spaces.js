// The spaces that there are, by kind, loaded page by page; and the list of them at the left.

import { batch, signal, useEffect } from "../vendor/preact.js";
import { getJson, isAbort, said } from "./api.js";
import { classes, html } from "./html.js";
import { fragment, route } from "./route.js";
import { Icon, Text } from "./ui.js";

/** @typedef {{ id: string, kind: string, name: string, created_at: string, expires_at: string | null }} Space */
/** @typedef {{ found: Space[], next: string | null, failure: string, loaded: boolean }} Kind */

export const KINDS = /** @type {const} */ (["store", "application", "session"]);
export const TITLES = { store: "Stores", application: "Applications", session: "Sessions" };

const PAGE = 200;

const none = () => ({ found: [], next: null, failure: "", loaded: false });

/** @type {import("@preact/signals").Signal<Record<string, Kind>>} */
export const kinds = signal({});

/** Spaces that were opened by their address, and may be on no page yet. */
const opened = signal(/** @type {Record<string, Space | null>} */ ({}));

/** @param {string} kind @param {boolean} [anew] */
export async function loadSpaces(kind, anew = false) {
  const before = anew ? none() : (kinds.value[kind] ?? none());
  try {
    const page = await getJson("/spaces", { query: { kind, after: before.next, limit: PAGE } });
    const found = [...before.found, ...page.spaces];
    kinds.value = { ...kinds.value, [kind]: { found, next: page.next, failure: "", loaded: true } };
  } catch (error) {
    if (!isAbort(error)) kinds.value = { ...kinds.value, [kind]: { ...before, failure: said(error), loaded: true } };
  }
}

export const loadAllKinds = () => Promise.all(KINDS.map((kind) => loadSpaces(kind, true)));

/** Ask anew what there is, but for this one. @param {string} id */
export async function spaceEnded(id) {
  await loadAllKinds();
  opened.value = { ...opened.value, [id]: null };
}

export const forgetSpaces = () => batch(() => ((kinds.value = {}), (opened.value = {})));

/** What is known of a space; undefined before it is known, null if there is none. @param {string} id */
export function spaceOf(id) {
  for (const { found } of Object.values(kinds.value)) {
    const space = found.find((each) => each.id === id);
    if (space) return space;
  }
  return opened.value[id];
}

/** Ask for one that no page has. @param {string} id */
export async function lookUp(id) {
  if (spaceOf(id) !== undefined) return;
  try {
    const { spaces } = await getJson("/spaces", { query: { after: before(id), limit: 1 } });
    opened.value = { ...opened.value, [id]: spaces[0]?.id === id ? spaces[0] : null };
  } catch {
    // The tree of it says what is wrong.
  }
}

/** The id just below this one: ids are numbers in base 32. @param {string} id */
function before(id) {
  const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
  const value = [...id].reduce((sum, digit) => sum * 32n + BigInt(digits.indexOf(digit)), 0n) - 1n;
  return [...Array(26).keys()].map((at) => digits[Number((value >> BigInt(5 * (25 - at))) & 31n)]).join("");
}

export function Spaces() {
  useEffect(() => void loadAllKinds(), []);
  return html`<nav class="spaces" id="spaces" aria-label="Spaces">
    ${KINDS.map((kind) => html`<${Group} key=${kind} kind=${kind} />`)}
  </nav>`;
}

/** @param {{ kind: typeof KINDS[number] }} props */
function Group({ kind }) {
  const { found, next, failure, loaded } = kinds.value[kind] ?? none();
  const here = route.value;
  return html`<section>
    <h2 id=${`kind-${kind}`}>${TITLES[kind]}</h2>
    ${failure && html`<p class="failure" role="alert">${failure} <button class="link" onClick=${() => void loadSpaces(kind)}>Try again</button></p>`}
    ${!loaded && html`<p class="soft">Loading …</p>`}
    ${loaded && !failure && found.length === 0 && html`<p class="soft">none</p>`}
    <ul aria-labelledby=${`kind-${kind}`}>
      ${found.map(
        (space) =>
          html`<li key=${space.id}>
            <a
              href=${fragment({ page: "data", space: space.id, view: "tree", base: [], key: null })}
              class=${classes(here.space === space.id && "here")}
              aria-current=${here.space === space.id ? "page" : undefined}
              title=${space.id}
            >
              <${Icon} name=${kind} /> <${Text} text=${space.name || space.id} most=${60} />
            </a>
          </li>`,
      )}
    </ul>
    ${next && html`<button class="link" onClick=${() => void loadSpaces(kind)}>More ${TITLES[kind].toLowerCase()}</button>`}
  </section>`;
}
