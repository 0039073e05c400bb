// The list on screen: a table of entries in an order, filtered by metadata, with a selection that can be deleted.

import { useCallback, useRef, useState } from "../vendor/preact.js";
import { Problem, said } from "./api.js";
import { Buttons, useWork } from "./changes.js";
import { now } from "./clock.js";
import { mistakes } from "./code.js";
import { removeAll } from "./entries.js";
import { count, counted, duration, moment } from "./format.js";
import { classes, html } from "./html.js";
import { sameKey } from "./keys.js";
import { go, route } from "./route.js";
import { mayWrite } from "./session.js";
import { MARKED_MILLISECONDS } from "./tree.js";
import { closeDialog, Dialog, Icon, KeyText, openDialog, Text, tell } from "./ui.js";
import { VirtualRows } from "./virtual.js";

/** @typedef {import("./listing.js").Listing} Listing */
/** @typedef {import("./listing.js").Item} Item */

const ROW_HEIGHT = 46;

/** @param {{ listing: Listing }} props */
export function ListView({ listing }) {
  void listing.version.value;
  const { items } = listing;
  const [active, setActive] = useState(-1);
  const scroller = useRef(/** @type {import("./virtual.js").Scroller | null} */ (null));
  const more = useCallback(
    (/** @type {number} */ last) => {
      if (last >= listing.items.length - 20 && !listing.failure) void listing.load();
    },
    [listing],
  );
  const selected = listing.selected.value;

  /** @param {number} at */
  const moveTo = (at) => {
    const next = Math.max(0, Math.min(items.length - 1, at));
    setActive(next);
    scroller.current?.reveal(next);
  };

  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "a" && mayWrite.value) {
      event.preventDefault();
      listing.selectAll(true);
    }
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    // With nothing selected it is for the entry that is open, as everywhere on the page.
    if (event.key === "Delete" && selected.size === 0) return;
    const page = scroller.current?.page() ?? 5;
    const item = items[active];
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowDown: () => moveTo(active + 1),
      ArrowUp: () => moveTo(active - 1),
      Home: () => moveTo(0),
      End: () => moveTo(items.length - 1),
      PageDown: () => moveTo(active + page),
      PageUp: () => moveTo(active - page),
      Enter: () => item && go({ key: item.key }),
      " ": () => item && mayWrite.value && listing.select(item.id),
      Delete: () => deleteSelected(listing),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  };

  /** @param {number} at @param {Record<string, string>} style */
  const drawn = (at, style) =>
    html`<${Row}
      key=${items[at].id}
      id=${`item-${at}`}
      number=${at}
      listing=${listing}
      item=${items[at]}
      style=${style}
      active=${at === active}
      activate=${() => setActive(at)}
    />`;

  return html`<${Filter} listing=${listing} />
    ${mayWrite.value && html`<${Selection} listing=${listing} />`}
    ${items.length === 0 && html`<${Nothing} listing=${listing} />`}
    <${VirtualRows}
      count=${items.length}
      rowHeight=${ROW_HEIGHT}
      row=${drawn}
      onReach=${more}
      scroller=${scroller}
      attributes=${{
        id: "list",
        role: "listbox",
        tabIndex: 0,
        hidden: items.length === 0,
        "aria-label": "Entries",
        "aria-multiselectable": "true",
        "aria-activedescendant": items[active] ? `item-${active}` : undefined,
        onKeyDown,
        onFocus: () => active < 0 && items.length > 0 && moveTo(0),
      }}
    />`;
}

/**
 * @param {{ listing: Listing, item: Item, id: string, number: number, style: Record<string, string>, active: boolean,
 *   activate: () => void }} props
 */
function Row({ listing, item, id, number, style, active, activate }) {
  const isOpen = Boolean(route.value.key && sameKey(route.value.key, item.key));
  const isSelected = listing.selected.value.has(item.id);
  const marked = performance.now() - item.changedAt < MARKED_MILLISECONDS && item.changedAt > 0;
  const names = classes("row item", active && "active", isOpen && "chosen", marked && "changed", item.gone && "gone");
  return html`<div
    id=${id}
    role="option"
    class=${names}
    style=${style}
    aria-selected=${String(isSelected)}
    aria-posinset=${number + 1}
    aria-setsize=${listing.next === null ? listing.items.length : -1}
    onClick=${() => {
      activate();
      go({ key: item.key });
    }}
  >
    ${
      mayWrite.value &&
      html`<span
        class=${classes("tick", isSelected && "ticked")}
        title="Select"
        onClick=${(/** @type {Event} */ event) => {
          event.stopPropagation();
          activate();
          listing.select(item.id);
        }}
      ></span>`
    }
    <span class="item-body">
      <span class="item-key"><${KeyText} parts=${item.key} /></span>
      <span class="item-text">
        <span class="soft"><${When} item=${item} /></span>
        <code><${Text} text=${item.preview} most=${120} /></code>
      </span>
    </span>
  </div>`;
}

/** @param {{ item: Item }} props */
function When({ item }) {
  if (item.gone) return "deleted";
  const left = item.expires_at === null ? null : Date.parse(item.expires_at) - now.value;
  return html`${moment(item.created_at)}${left === null ? "" : left > 0 ? `, ends in ${duration(left)}` : ", has expired"}`;
}

/** @param {{ listing: Listing }} props */
function Nothing({ listing }) {
  if (listing.failure)
    return html`<div class="empty">
      <p class="failure" role="alert">${listing.failure}</p>
      <button onClick=${() => void listing.load()}>Try again</button>
    </div>`;
  if (!listing.loaded) return html`<p class="loading" role="status">Loading …</p>`;
  return html`<p class="empty">${listing.metadata ? "No entry has this metadata." : "No entries here yet."}</p>`;
}

/** @param {{ listing: Listing }} props */
function Filter({ listing }) {
  const [text, setText] = useState(listing.metadata);
  const [failure, setFailure] = useState("");
  const filter = () => {
    const wanted = text.trim();
    const bad = wanted !== "" && (mistakes(wanted).length > 0 || !wanted.startsWith("{"));
    setFailure(bad ? 'Write a JSON object, as {"by": "me"}.' : "");
    if (!bad) listing.ask(listing.order, wanted);
  };
  return html`<form
    class="bar filter"
    onSubmit=${(/** @type {Event} */ event) => {
      event.preventDefault();
      filter();
    }}
  >
    <select
      aria-label="Order"
      value=${listing.order}
      onChange=${(/** @type {any} */ event) => listing.ask(event.currentTarget.value, listing.metadata)}
    >
      <option value="newest">Newest first</option>
      <option value="oldest">Oldest first</option>
      <option value="key">By key</option>
    </select>
    <input
      class="mono"
      aria-label="Filter by metadata"
      aria-invalid=${failure ? "true" : undefined}
      placeholder='metadata, as {"by": "me"}'
      value=${text}
      spellcheck=${false}
      autocomplete="off"
      onInput=${(/** @type {any} */ event) => setText(event.currentTarget.value)}
    />
    <button>Filter</button>
    ${failure && html`<span class="bad" role="alert">${failure}</span>`}
  </form>`;
}

/** @param {{ listing: Listing }} props */
function Selection({ listing }) {
  void listing.version.value;
  const number = listing.selected.value.size;
  const all = listing.items.length > 0 && number === listing.items.length;
  return html`<div class="bar selection">
    <label class="choice"
      ><input
        type="checkbox"
        checked=${all}
        indeterminate=${number > 0 && !all}
        disabled=${listing.items.length === 0}
        onChange=${(/** @type {any} */ event) => listing.selectAll(event.currentTarget.checked)}
      />
      ${number ? `${number} selected` : listing.next === null ? "Select all" : "Select all that are loaded"}</label
    >
    <span class="gap"></span>
    <button id="delete-selected" class="danger" disabled=${number === 0} onClick=${() => deleteSelected(listing)}>
      <${Icon} name="trash" /> Delete
    </button>
  </div>`;
}

/** @param {Listing} listing */
const deleteSelected = (listing) =>
  openDialog(() => html`<${DeleteSelected} listing=${listing} chosen=${listing.chosen()} />`);

/** @param {{ listing: Listing, chosen: Item[] }} props */
function DeleteSelected({ listing, chosen }) {
  const [seen] = useState(chosen);
  const [done, setDone] = useState(0);
  // What runs for long reads it here: `done` is what it was when that began.
  const gone = useRef(0);
  const work = useWork(async () => {
    const before = gone.current;
    try {
      await removeAll(listing.space, seen.slice(before), (more) => setDone((gone.current = before + more)));
    } catch (error) {
      throw new Error(stopped(error, gone.current, seen.length - gone.current), { cause: error });
    }
    closeDialog();
    tell(`${counted(seen.length, "entry")} deleted.`);
  });
  const left = seen.slice(done);
  const title = `Delete ${counted(left.length, "entry")}`;
  return html`<${Dialog} title=${title} onSubmit=${work.run} busy=${work.busy}>
    <ul class="some">
      ${left.slice(0, 8).map((item) => html`<li><${KeyText} parts=${item.key} /></li>`)}
      ${left.length > 8 && html`<li class="soft">and ${left.length - 8} more</li>`}
    </ul>
    <p class="soft">Each is deleted only as you have seen it. This cannot be undone.</p>
    <${Buttons} work=${work} label=${title} danger />
  <//>`;
}

/** Why not all were deleted, and how many are. @param {unknown} error @param {number} gone @param {number} left */
function stopped(error, gone, left) {
  const is = (/** @type {number} */ number) => (number === 1 ? "is" : "are");
  const before = gone ? `${counted(gone, "entry")} ${is(gone)} deleted, ${count(left)} ${is(left)} not` : "";
  if (error instanceof Problem && error.status === 412) {
    const changed = counted(error.document.failed?.length ?? 1, "entry");
    if (before) return `${before}: ${changed} of these changed since you looked. Look again.`;
    return `${changed} changed since you looked, so none of these was deleted. Look again.`;
  }
  if (!before) return said(error);
  if (error instanceof Problem) return `${before}. ${said(error)}`;
  return `${counted(gone, "entry")} ${is(gone)} deleted; some of the other ${count(left)} may be, too. ${said(error)}`;
}
