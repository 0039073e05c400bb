// The page of the data: spaces at the left, keys of one in the middle, one entry at the right.

import { useEffect, useRef, useState } from "../vendor/preact.js";
import { getJson, said } from "./api.js";
import { deleteEntry } from "./changes.js";
import { Below, EntryPane } from "./entryview.js";
import { classes, html } from "./html.js";
import { parseKey, startsWith } from "./keys.js";
import { ListView } from "./listview.js";
import { draftOf } from "./opened.js";
import { fragment, go, route } from "./route.js";
import { mayWrite } from "./session.js";
import { lookUp, spaceOf, Spaces } from "./spaces.js";
import { TreeView } from "./treeview.js";
import { backToKeys, Icon, KeyText, Loading, Text, tell } from "./ui.js";
import { listing, live, opened, ownBase, paused, tree } from "./workspace.js";

export function Data() {
  const { space, key } = route.value;
  return html`<div class=${classes("data", space && "has-space", space && key && "has-key")}>
    <${Spaces} />
    ${space ? html`<${Space} key=${space} id=${space} />` : html`<${Welcome} />`}
  </div>`;
}

const Welcome = () =>
  html`<main class="welcome empty">
    <h1>Choose a space</h1>
    <p class="soft">Choose one of the stores, applications and sessions. <kbd>?</kbd> shows what the keyboard does.</p>
  </main>`;

/** @param {{ id: string }} props */
function Space({ id }) {
  useEffect(() => void lookUp(id), [id]);
  const space = spaceOf(id);
  const state = live.value?.state.value;
  const over = state === "ended" || state === "absent" ? state : null;
  return html`<main class="both">
    <section class="keys" aria-label="Keys">
      <header class="space-head">
        <a class="icon-button only-narrow" aria-label="Back to the spaces" href="#/"><${Icon} name="back" /></a>
        <h1>
          ${space ? html`<${Text} text=${space.name || space.id} most=${80} />` : space === null ? "No such space" : "…"}
        </h1>
        <${Following} />
      </header>
      ${over ? html`<p class="empty" role="alert">${ENDED[over]}</p>` : html`<${Keys} id=${id} />`}
    </section>
    <${Pane} over=${Boolean(over)} />
  </main>`;
}

const ENDED = {
  ended: "This space has ended, and all that was in it.",
  absent: "There is no such space, or none that this access key opens.",
};

/** @param {{ id: string }} props */
function Keys({ id }) {
  const { view, base } = route.value;
  return html`<${Jump} space=${id} />
    <div class="bar views">
      <div role="group" aria-label="View">
        <button aria-pressed=${String(view === "tree")} onClick=${() => go({ view: "tree" })}>Tree</button
        ><button aria-pressed=${String(view === "list")} onClick=${() => go({ view: "list" })}>List</button>
      </div>
      <${Crumbs} space=${id} base=${base} />
    </div>
    ${view === "tree" && tree.value && html`<${TreeOrNothing} key=${fragment({ ...route.value, key: null })} id=${id} />`}
    ${view === "list" && listing.value && html`<${ListView} listing=${listing.value} />`}
    <${Below} key=${fragment({ ...route.value, key: null })} space=${id} prefix=${base} />`;
}

/** What is open at the right. Of a space that has ended, only what somebody is writing is. @param {{ over: boolean }} props */
function Pane({ over }) {
  const shown = opened.value;
  if (route.value.key && shown && !(over && !draftOf(shown.space, shown.key)))
    return html`<${EntryPane} opened=${shown} />`;
  return html`<section class="pane nothing" aria-label="Entry">
    <p class="soft">${over ? "" : "Choose a key to see its entry."}</p>
  </section>`;
}

/** @param {{ id: string }} props */
function TreeOrNothing({ id }) {
  const shown = tree.value;
  if (!shown) return null;
  void shown.version.value;
  const { root } = shown;
  if (root.failure && !root.children)
    return html`<div class="empty">
      <p class="failure" role="alert">${root.failure}</p>
      <button onClick=${() => void shown.load(root)}>Try again</button>
    </div>`;
  if (!root.children && !root.former) return html`<${Loading} />`;
  if (root.children?.length === 0 && root.next === null)
    return html`<p class="empty">${route.value.base.length ? "There are no keys below this." : "No keys yet."}</p>`;
  return html`<${TreeView}
    tree=${shown}
    onDelete=${(/** @type {string[]} */ key) => mayWrite.value && void deleteEntry(id, key)}
  />`;
}

const WORDS = {
  live: "Live",
  connecting: "Connecting …",
  lost: "Not reached; trying again",
  paused: "Paused",
  ended: "This space has ended",
  absent: "No such space",
};

/** Whether changes come, and the button that stops them. */
function Following() {
  const state = live.value?.state.value ?? "connecting";
  const status = html`<span class=${`live ${state}`} role="status"><span class="lamp"></span> ${WORDS[state]}</span>`;
  if (live.value?.isOver()) return status;
  return html`${status}
    <button
      class="icon-button"
      id="pause"
      aria-pressed=${String(paused.value)}
      aria-label="Pause live changes"
      title=${paused.value ? "Follow changes again" : "Pause live changes"}
      onClick=${() => (paused.value = !paused.value)}
    >
      <${Icon} name=${paused.value ? "play" : "pause"} />
    </button>`;
}

/** A box that goes to a prefix or a key. @param {{ space: string }} props */
function Jump({ space }) {
  const [text, setText] = useState("");
  const [failure, setFailure] = useState("");
  const box = useRef(/** @type {HTMLInputElement | null} */ (null));
  const leave = () => {
    box.current?.blur();
    backToKeys();
  };
  /** @param {Event} event */
  const jump = async (event) => {
    event.preventDefault();
    try {
      const trimmed = text.trim();
      const parts = parseKey(trimmed.startsWith("[") ? trimmed : trimmed.replace(/^\/|\/$/g, ""));
      const nowhere = await goTo(space, parts);
      setFailure(nowhere);
      if (!nowhere) leave();
    } catch (error) {
      setFailure(said(error));
    }
  };
  return html`<form class="jump" role="search" onSubmit=${jump}>
    <${Icon} name="search" />
    <input
      ref=${box}
      id="jump"
      class="mono"
      aria-label="Go to a prefix or key"
      aria-describedby=${failure ? "jump-failure" : undefined}
      aria-invalid=${failure ? "true" : undefined}
      placeholder="Go to a prefix or key, as products/1"
      autocomplete="off"
      spellcheck=${false}
      value=${text}
      onInput=${(/** @type {any} */ event) => {
        setText(event.currentTarget.value);
        setFailure("");
      }}
      onKeyDown=${(/** @type {KeyboardEvent} */ event) => event.key === "Escape" && !event.isComposing && leave()}
    />
    <kbd class="not-narrow">/</kbd>
    ${failure && html`<p class="failure" id="jump-failure" role="alert">${failure}</p>`}
  </form>`;
}

/**
 * Show what is below these parts, the entry of the key if that is all, or what comes next if there is neither.
 * @param {string} space
 * @param {string[]} parts
 */
async function goTo(space, parts) {
  const own = ownBase();
  if (!startsWith(parts, own)) {
    if (parts.length) return "This access key opens only keys that begin as the tree does.";
    go({ base: own, key: null });
    return "";
  }
  if (parts.length === 0) {
    go({ base: [], key: null });
    return "";
  }
  const below = await getJson(`/spaces/${space}/children`, { query: { prefix: parts, limit: 1 } });
  if (below.children.length || below.next) {
    go({ base: parts, key: parts });
    return "";
  }
  const found = await getJson(`/spaces/${space}/entries`, { query: { prefix: parts, limit: 1, values: false } });
  if (found.entries.length > 0) {
    go({ key: parts, ...(startsWith(parts, route.value.base) ? {} : { base: own }) });
    tell("This key has an entry, and nothing below it.");
    return "";
  }
  const next = await nextBehind(space, parts, own.length);
  if (!next) return "No key begins with these parts, and none comes after them.";
  go({ base: next.slice(0, -1), key: next });
  tell("No key begins with these parts. This is what comes next.");
  return "";
}

/**
 * What comes next in the order of keys, down to the part that differs; null if nothing does.
 * @param {string} space
 * @param {string[]} parts
 * @param {number} least parts that stay
 */
async function nextBehind(space, parts, least) {
  for (let length = parts.length - 1; length >= least; length -= 1) {
    const prefix = parts.slice(0, length);
    const query = { ...(length ? { prefix } : {}), from: parts[length], limit: 2 };
    const { children } = await getJson(`/spaces/${space}/children`, { query });
    const next = children.find((/** @type {{ part: string }} */ child) => child.part !== parts[length]);
    if (next) return [...prefix, next.part];
  }
  return null;
}

/** Where the tree begins, each part a way up. @param {{ space: string, base: string[] }} props */
function Crumbs({ space, base }) {
  const own = ownBase().length;
  const { view } = route.value;
  /** @param {number} length */
  const to = (length) => fragment({ page: "data", space, view, base: base.slice(0, length), key: null });
  const steps = base.map((part, at) => ({ part, length: at + 1 })).filter(({ length }) => length > own);
  return html`<nav class="crumbs" aria-label="Where the keys begin">
    <a href=${to(own)} title="All keys"
      >${own ? html`<${KeyText} parts=${base.slice(0, own)} most=${40} />` : "all keys"}</a
    >
    ${steps.map(({ part, length }) => html`<span class="slash">/</span><a href=${to(length)}><${Text} text=${part} most=${40} /></a>`)}
  </nav>`;
}
