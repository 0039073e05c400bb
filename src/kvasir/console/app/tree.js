// The exact tree of a space by the parts of its keys, loaded page by page where it is opened. The model; no elements.

import { signal } from "../vendor/preact.js";
import { getJson, isAbort, said } from "./api.js";
import { compareParts, startsWith } from "./keys.js";

/** @typedef {import("./keys.js").Parts} Parts */
/** @typedef {import("./live.js").Change} Change */

// Children a request: few at first, so that they show at once.
const FIRST_PAGE = 200;
const NEXT_PAGES = 1000;

/** How long a change stays marked. */
export const MARKED_MILLISECONDS = 2_500;

export class Node {
  /**
   * @param {Node | null} parent
   * @param {string} part
   * @param {boolean} entry whether the key itself has an entry
   * @param {boolean} below whether there are longer keys
   */
  constructor(parent, part, entry, below) {
    this.parent = parent;
    this.part = part;
    this.entry = entry;
    this.below = below;
    /** @type {number} */
    this.depth = parent ? parent.depth + 1 : -1;
    this.open = false;
    /** The first ones, in order; null before they are asked for. @type {Node[] | null} */
    this.children = null;
    /** What was known before it was asked for anew, and stands until that has come. @type {Map<string, Node> | null} */
    this.former = null;
    /** Where the next page begins; null if there is none. @type {string | null} */
    this.next = null;
    /** Whether there may be children before the first one that is loaded. */
    this.cut = false;
    this.loading = false;
    /** How often it was forgotten: what was asked for before that is no answer. */
    this.turn = 0;
    /** The last request for children. @type {Promise<void> | null} */
    this.asked = null;
    this.failure = "";
    this.changedAt = 0;
    /** Made once: rows of 100,000 nodes are put together anew with each page. @type {Row} */
    this.row = { node: this, kind: "node" };
    /** What stand for children before and behind those that are loaded. @type {Row | null} */
    this.rowBefore = null;
    /** @type {Row | null} */
    this.rowBehind = null;
  }

  /** @type {Map<string, Node> | null} made when the live view asks */
  #byPart = null;

  /** @param {string} part */
  child(part) {
    if (!this.children) return undefined;
    this.#byPart ??= new Map(this.children.map((node) => [node.part, node]));
    return this.#byPart.get(part);
  }

  forgetIndex() {
    this.#byPart = null;
  }

  /** As if nothing had been asked for yet. */
  forget() {
    this.children = this.former = null;
    this.next = null;
    this.cut = this.loading = false;
    this.turn += 1;
    this.#byPart = null;
  }

  /** What is shown as being below: what has come, or else what was there before. @returns {Iterable<Node>} */
  shown() {
    return this.children ?? this.former?.values() ?? [];
  }
}

/** @typedef {{ node: Node, kind: "node" | "before" | "behind" }} Row one of a node, or for children that are not loaded */

export class Tree {
  /** Rises whenever what is shown may have changed. */
  version = signal(0);
  /** @type {Row[]} */
  rows = [];
  #asked = new AbortController();
  /** @type {Map<Node, number>} */
  #probes = new Map();

  /** @param {string} space @param {Parts} base */
  constructor(space, base) {
    this.space = space;
    this.base = base;
    this.root = new Node(null, "", false, true);
    this.root.open = true;
    void this.load(this.root);
  }

  close() {
    this.#asked.abort();
    for (const timer of this.#probes.values()) clearTimeout(timer);
  }

  /** The whole key of a node. @param {Node} node @returns {Parts} */
  parts(node) {
    /** @type {Parts} */
    const parts = [];
    for (let at = /** @type {Node} */ (node); at.parent; at = at.parent) parts.push(at.part);
    return [...this.base, ...parts.reverse()];
  }

  /**
   * The next page of a node's children.
   * @param {Node} node
   * @param {string} [from] the part at whose place the first page begins
   * @returns {Promise<void>}
   */
  load(node, from) {
    if (!node.loading && (!node.children || node.next !== null)) node.asked = this.#load(node, from);
    return /** @type {Promise<void>} */ (node.asked);
  }

  /** The first page, which was left out. @param {Node} node */
  loadBefore(node) {
    node.forget();
    return this.load(node);
  }

  /** @param {Node} node @param {string} [from] */
  async #load(node, from) {
    const { turn } = node;
    node.loading = true;
    node.failure = "";
    if (!node.children) this.#redraw();
    try {
      const limit = node.children || node.former ? NEXT_PAGES : FIRST_PAGE;
      const prefix = this.parts(node);
      const query = { ...(prefix.length ? { prefix } : {}), from, after: node.next, limit };
      node.cut ||= from !== undefined;
      const page = await getJson(`/spaces/${this.space}/children`, { query, signal: this.#asked.signal });
      if (node.turn !== turn) return;
      const children = (node.children ??= []);
      const last = children.at(-1)?.part;
      for (const { part, entry, below } of page.children) {
        // What came live meanwhile may be there already.
        if (last !== undefined && compareParts(part, last) <= 0 && node.child(part)) continue;
        children.push(this.#known(node, part, entry, below) ?? new Node(node, part, entry, below));
      }
      node.forgetIndex();
      node.next = page.next;
      if (node.next === null) node.former = null;
      if (children.length === 0 && node.next === null && !node.cut) this.#emptied(node);
    } catch (error) {
      if (isAbort(error) || node.turn !== turn) return;
      node.failure = said(error);
    }
    node.loading = false;
    this.#redraw();
  }

  /** There is nothing below it any more. @param {Node} node */
  #emptied(node) {
    const { parent } = node;
    if (!parent) return;
    node.below = node.open = false;
    node.forget();
    if (node.entry || !parent.children) return;
    parent.children = parent.children.filter((child) => child !== node);
    parent.forgetIndex();
    if (parent.children.length === 0 && parent.parent) this.probe(parent);
  }

  /** @param {Node} node @param {boolean} open */
  setOpen(node, open) {
    if (node.open === open || (open && !node.below)) return;
    node.open = open;
    if (open && !node.children) void this.load(node);
    this.#redraw();
  }

  /** Open what is above a key, as far as it is there. @param {Parts} key */
  async reveal(key) {
    if (!startsWith(key, this.base)) return;
    let node = this.root;
    for (const part of key.slice(this.base.length, -1)) {
      const found = await this.#reach(node, part);
      if (!found?.below) return;
      this.setOpen(found, true);
      node = found;
    }
    if (key.length > this.base.length) await this.#reach(node, key[key.length - 1]);
  }

  /** A child, whose page is loaded in place of the earlier ones if it comes later. @param {Node} node @param {string} part */
  async #reach(node, part) {
    await (node.children ? node.asked : this.load(node));
    const loaded = node.children;
    if (!loaded?.length || node.child(part)) return node.child(part);
    if (node.next !== null && compareParts(part, loaded[loaded.length - 1].part) > 0) {
      node.forget();
      await this.load(node, part);
    } else if (node.cut && compareParts(part, loaded[0].part) < 0) await this.loadBefore(node);
    return node.child(part);
  }

  /** Begin anew, with what is open kept open. */
  reload() {
    this.#renew(this.root);
  }

  /** @param {Node} node */
  #renew(node) {
    const former = node.children ? new Map(node.children.map((child) => [child.part, child])) : node.former;
    const from = node.cut ? node.children?.[0]?.part : undefined;
    node.forget();
    node.former = former;
    void this.load(node, from);
  }

  /** The child as it was before, if there was one. @param {Node} node @param {string} part @param {boolean} entry @param {boolean} below */
  #known(node, part, entry, below) {
    const child = node.former?.get(part);
    if (!child) return undefined;
    Object.assign(child, { entry, below, open: child.open && below });
    if (child.open) this.#renew(child);
    else child.forget();
    return child;
  }

  /** The loaded node of a key; undefined if none is. @param {Parts} key */
  find(key) {
    if (!startsWith(key, this.base)) return undefined;
    const node = this.#nearest(key);
    return this.base.length + node.depth + 1 === key.length ? node : undefined;
  }

  /** The deepest loaded node on the way to a key. @param {Parts} key */
  #nearest(key) {
    let node = this.root;
    for (const part of key.slice(this.base.length)) {
      const next = node.child(part);
      if (!next) break;
      node = next;
    }
    return node;
  }

  #redraw() {
    /** @type {Row[]} */
    const rows = [];
    /** @param {Node} node */
    const add = (node) => {
      if (node.cut) rows.push((node.rowBefore ??= { node, kind: "before" }));
      for (const child of node.shown()) {
        rows.push(child.row);
        if (child.open) add(child);
      }
      if (node.next !== null || node.failure || (node.loading && !node.children && !node.former))
        rows.push((node.rowBehind ??= { node, kind: "behind" }));
    };
    add(this.root);
    this.rows = rows;
    this.version.value += 1;
  }

  // -- changes as they come ---------------------------------------------------------------------------------

  /** @param {Change[]} changes */
  follow(changes) {
    let redraw = false;
    for (const { name, data } of changes) {
      if (name === "set") redraw = this.#set(data.key) || redraw;
      else if (name === "expiry") redraw = this.#mark(data.key) || redraw;
      else if (name === "delete") this.#removed(data.key, false);
      else if (name === "delete_prefix") this.#removed(data.prefix, true);
      else if (name === "resync") this.reload();
    }
    if (redraw) {
      this.#redraw();
      setTimeout(() => (this.version.value += 1), MARKED_MILLISECONDS + 50);
    }
  }

  /** @param {Parts} key */
  #set(key) {
    if (!startsWith(key, this.base)) return false;
    const parts = key.slice(this.base.length);
    let node = this.root;
    for (let at = 0; at < parts.length; at += 1) {
      const isKey = at === parts.length - 1;
      const found = node.child(parts[at]) ?? this.#insert(node, parts[at]);
      if (!found) return node !== this.root;
      found.changedAt = performance.now();
      if (isKey) found.entry = true;
      else found.below = true;
      if (isKey || !found.children) return true;
      node = found;
    }
    return false;
  }

  /** A new child in its place, unless that is beyond what is loaded. @param {Node} node @param {string} part */
  #insert(node, part) {
    if (!node.children) return undefined;
    let low = 0;
    let high = node.children.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compareParts(node.children[middle].part, part) < 0) low = middle + 1;
      else high = middle;
    }
    if (low === node.children.length && node.next !== null) return undefined;
    if (low === 0 && node.cut) return undefined;
    const made = new Node(node, part, false, false);
    node.children.splice(low, 0, made);
    node.forgetIndex();
    return made;
  }

  /** @param {Parts} key */
  #mark(key) {
    const node = this.find(key);
    if (node) node.changedAt = performance.now();
    return Boolean(node);
  }

  /** A key is gone, or all below it too: ask what is left. @param {Parts} key @param {boolean} below */
  #removed(key, below) {
    if (!startsWith(key, this.base)) {
      if (below && startsWith(this.base, key)) this.reload();
      return;
    }
    const node = this.find(key);
    if (node === this.root) this.reload();
    // What is closed may have lost the last of what is below it.
    if (!node && !this.#nearest(key).children) this.probe(this.#nearest(key));
    if (!node || node === this.root) return;
    node.entry = false;
    if (below) {
      node.forget();
      node.open = false;
    }
    node.changedAt = performance.now();
    this.probe(node);
  }

  /** Soon see whether a node still stands for anything, and its parents. @param {Node} node */
  probe(node) {
    if (this.#probes.has(node)) return;
    const run = async () => {
      this.#probes.delete(node);
      const key = this.parts(node);
      try {
        if (!node.parent) return;
        const [page, found] = await Promise.all([
          getJson(`/spaces/${this.space}/children`, { query: { prefix: key, limit: 1 }, signal: this.#asked.signal }),
          getJson(`/spaces/${this.space}/entries`, {
            query: { prefix: key, limit: 1, values: false },
            signal: this.#asked.signal,
          }),
        ]);
        node.below = page.children.length > 0 || page.next !== null;
        node.entry = found.entries[0]?.key.length === key.length;
        if (!node.below) this.#emptied(node);
        this.#redraw();
      } catch {
        // The next change, or a look at the entry, tells.
      }
    };
    this.#probes.set(node, setTimeout(run, 60));
  }
}
