// The tree on screen, as the ARIA pattern of trees says: one element has the focus, arrows move an active row in it.

import { useCallback, useEffect, useRef, useState } from "../vendor/preact.js";
import { classes, html } from "./html.js";
import { compareParts, sameKey } from "./keys.js";
import { go, route } from "./route.js";
import { MARKED_MILLISECONDS } from "./tree.js";
import { Icon, Text } from "./ui.js";
import { VirtualRows } from "./virtual.js";

/** @typedef {import("./tree.js").Tree} Tree */
/** @typedef {import("./tree.js").Row} Row */

const ROW_HEIGHT = 26;

/** @param {{ tree: Tree, onDelete: (key: string[]) => void }} props */
export function TreeView({ tree, onDelete }) {
  void tree.version.value;
  const { rows } = tree;
  const [active, setActive] = useState(/** @type {Row | null} */ (null));
  const scroller = useRef(/** @type {import("./virtual.js").Scroller | null} */ (null));
  const chosen = route.value.key;

  const activeAt = active ? rows.indexOf(active) : -1;
  const loadMore = useCallback(
    (/** @type {number} */ last) => {
      for (let at = Math.max(0, last - 60); at <= last && at < tree.rows.length; at += 1) {
        const row = tree.rows[at];
        if (row.kind === "behind" && !row.node.failure) void tree.load(row.node);
      }
    },
    [tree],
  );

  // A deep link, or what another part of the page went to.
  const chosenId = chosen && JSON.stringify(chosen);
  useEffect(() => {
    if (!chosen) return;
    void tree.reveal(chosen).then(() => {
      const node = tree.find(chosen);
      if (!node || node === tree.root) return;
      setActive(node.row);
      scroller.current?.reveal(tree.rows.indexOf(node.row));
    });
  }, [chosenId, tree]);

  /** @param {number} at */
  const moveTo = (at) => {
    const next = Math.max(0, Math.min(rows.length - 1, at));
    if (!rows[next]) return;
    setActive(rows[next]);
    scroller.current?.reveal(next);
  };

  /** The very first one, whether it is loaded or not. */
  const moveToStart = async () => {
    if (tree.root.cut) await tree.loadBefore(tree.root);
    setActive(tree.rows[0] ?? null);
    scroller.current?.reveal(0);
  };

  /** Load what a row stands for, and go on from the first of it. @param {Row} row */
  const unfold = async ({ node, kind }) => {
    const known = node.children?.length ?? 0;
    await (kind === "before" ? tree.loadBefore(node) : tree.load(node));
    const first = node.children?.[kind === "before" ? 0 : known];
    if (first) setActive(first.row);
  };

  /** @param {Row["node"]} node */
  const choose = (node) => {
    setActive(node.row);
    go({ key: tree.parts(node) });
  };

  /** @param {KeyboardEvent} event */
  const onKeyDown = (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    // With no row active it is for the entry that is open, as everywhere on the page.
    if (event.key === "Delete" && activeAt < 0) return;
    const row = rows[activeAt];
    const node = row?.kind === "node" ? row.node : null;
    const page = scroller.current?.page() ?? 10;
    const last = rows.length - 1 - (rows.at(-1)?.kind === "behind" && !rows.at(-1)?.node.failure ? 1 : 0);
    const enter = () => (node ? choose(node) : row && void unfold(row));
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowDown: () => moveTo(activeAt + 1),
      ArrowUp: () => moveTo(activeAt < 0 ? rows.length - 1 : activeAt - 1),
      Home: () => void moveToStart(),
      End: () => moveTo(last),
      PageDown: () => moveTo(Math.min(activeAt + page, last)),
      PageUp: () => moveTo(activeAt - page),
      ArrowRight: () => {
        if (node?.below && !node.open) tree.setOpen(node, true);
        else if (node?.open && node.children?.length) moveTo(activeAt + 1);
      },
      ArrowLeft: () => {
        if (node?.open) tree.setOpen(node, false);
        else if (node?.parent && node.parent !== tree.root) moveTo(rows.indexOf(node.parent.row));
      },
      Enter: enter,
      " ": enter,
      Delete: () => node && onDelete(tree.parts(node)),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };

  const soon = performance.now() - MARKED_MILLISECONDS;
  /** @param {number} at @param {Record<string, string>} style @param {number} place */
  const drawn = (at, style, place) => {
    const shown = rows[at];
    const { node, kind } = shown;
    const depth = kind === "node" ? node.depth : node.depth + 1;
    const inset = { ...style, paddingInlineStart: `${8 + Math.min(depth, 40) * 16}px` };
    if (kind !== "node")
      return html`<div
        key=${place}
        id=${`tree-${at}`}
        role="treeitem"
        class=${classes("row more", shown === active && "active")}
        style=${inset}
        aria-level=${depth + 1}
        onClick=${() => void unfold(shown)}
      >
        ${kind === "behind" && !node.failure ? "Loading …" : html`${node.failure} <span class="link">${kind === "before" ? "Show from the first one on" : "Try again"}</span>`}
      </div>`;
    const isChosen = Boolean(chosen) && sameKey(tree.parts(node), chosen ?? []);
    return html`<div
      key=${place}
      id=${`tree-${at}`}
      role="treeitem"
      class=${classes("row", shown === active && "active", isChosen && "chosen", node.changedAt > 0 && node.changedAt > soon && "changed")}
      style=${inset}
      aria-level=${node.depth + 1}
      aria-expanded=${node.below ? String(node.open) : undefined}
      aria-selected=${String(isChosen)}
      aria-posinset=${node.parent?.cut ? undefined : siblingNumber(node)}
      aria-setsize=${node.parent?.next === null && !node.parent.cut ? (node.parent.children?.length ?? -1) : -1}
      onClick=${() => choose(node)}
      onDblClick=${() => tree.setOpen(node, !node.open)}
    >
      <span
        class=${classes("twist", node.open && "open", !node.below && "none")}
        onClick=${(/** @type {Event} */ event) => {
          if (!node.below) return;
          event.stopPropagation();
          setActive(node.row);
          tree.setOpen(node, !node.open);
        }}
        ><${Icon} name="right"
      /></span>
      <span class=${classes("part", !node.entry && "folder")}><${Text} text=${node.part} /></span>
      ${node.entry && node.below && html`<span class="dot" aria-hidden="true" title="an entry, with more below"></span>`}
    </div>`;
  };

  return html`<${VirtualRows}
    count=${rows.length}
    rowHeight=${ROW_HEIGHT}
    row=${drawn}
    item=${(/** @type {number} */ at) => rows[at]}
    onReach=${loadMore}
    scroller=${scroller}
    attributes=${{
      id: "tree",
      role: "tree",
      tabIndex: 0,
      "aria-label": "Keys",
      "aria-activedescendant": activeAt >= 0 ? `tree-${activeAt}` : undefined,
      onKeyDown,
      // Whoever looks at the entry above the tree has not chosen a row in it.
      onFocus: () => activeAt < 0 && rows.length > 0 && !(chosen && sameKey(chosen, tree.base)) && moveTo(0),
    }}
  />`;
}

/** @param {Row["node"]} node */
const siblingNumber = (node) => {
  const siblings = node.parent?.children ?? [];
  // Looked up among many only by halving: they are in order.
  let low = 0;
  let high = siblings.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (siblings[middle] === node) return middle + 1;
    if (compareParts(siblings[middle].part, node.part) < 0) low = middle + 1;
    else high = middle;
  }
  return low + 1;
};
