// A list of entries below a prefix, in an order, perhaps of those with certain metadata; loaded page by page.
// The model; no elements.

import { signal } from "../vendor/preact.js";
import { isAbort, said } from "./api.js";
import { page, toldInPart } from "./entries.js";
import { compareKeys, idOf, startsWith } from "./keys.js";
import { MARKED_MILLISECONDS } from "./tree.js";

/** @typedef {import("./keys.js").Parts} Parts */
/** @typedef {"newest" | "oldest" | "key"} Order */
/**
 * What is kept of an entry; preview is the beginning of its text.
 * @typedef {{ key: Parts, id: string, preview: string, versionstamp: string, expires_at: string | null,
 *   created_at: string, metadata: string | null, changedAt: number, gone: boolean }} Item
 */

const FIRST_PAGE = 50;
const NEXT_PAGES = 200;
const PREVIEW = 160;

/** @param {import("./entries.js").Entry} entry @returns {Item} */
const itemOf = ({ key, text, versionstamp, expires_at, created_at, metadata }) => ({
  key,
  id: idOf(key),
  // Outside of strings, where alone JSON may have line ends, one space stands for all white space.
  preview: text
    .trimStart()
    .slice(0, PREVIEW)
    .replace(/[\n\r\t]\s*/g, " ")
    .trimEnd(),
  versionstamp,
  expires_at,
  created_at,
  metadata,
  changedAt: 0,
  gone: false,
});

export class Listing {
  version = signal(0);
  /** @type {Item[]} */
  items = [];
  /** @type {Map<string, Item>} */
  #byKey = new Map();
  /** @type {string | null} */
  next = null;
  loading = false;
  loaded = false;
  failure = "";
  order = /** @type {Order} */ ("newest");
  /** JSON that the metadata must contain; "" for any */
  metadata = "";
  /** The keys that are selected for something. @type {import("@preact/signals").Signal<ReadonlySet<string>>} */
  selected = signal(new Set());
  #asked = new AbortController();

  /** @param {string} space @param {Parts} base */
  constructor(space, base) {
    this.space = space;
    this.base = base;
    void this.load();
  }

  close() {
    this.#asked.abort();
  }

  /** @param {Order} order @param {string} metadata */
  ask(order, metadata) {
    this.order = order;
    this.metadata = metadata;
    this.reload();
  }

  reload() {
    this.#asked.abort();
    this.#asked = new AbortController();
    this.items = [];
    this.#byKey.clear();
    this.next = null;
    this.loading = this.loaded = false;
    this.selected.value = new Set();
    void this.load();
  }

  async load() {
    if (this.loading || (this.loaded && this.next === null)) return;
    this.loading = true;
    this.failure = "";
    this.version.value += 1;
    const { signal } = this.#asked;
    try {
      const query = {
        prefix: this.base.length ? this.base : null,
        order: this.order,
        metadata: this.metadata || null,
        cursor: this.next,
        limit: this.loaded ? NEXT_PAGES : FIRST_PAGE,
      };
      const found = await page(this.space, query, signal);
      for (const entry of found.entries) {
        const item = itemOf(entry);
        if (this.#byKey.has(item.id)) continue; // came live meanwhile
        this.items.push(item);
        this.#byKey.set(item.id, item);
      }
      this.next = found.next;
      this.loaded = true;
    } catch (error) {
      if (isAbort(error)) return;
      this.failure = said(error);
    }
    this.loading = false;
    this.version.value += 1;
  }

  /** @param {string} id */
  select(id) {
    const selected = new Set(this.selected.value);
    if (!selected.delete(id)) selected.add(id);
    this.selected.value = selected;
  }

  /** @param {boolean} all of what is loaded */
  selectAll(all) {
    this.selected.value = new Set(all ? this.items.filter((item) => !item.gone).map((item) => item.id) : []);
  }

  chosen() {
    return this.items.filter((item) => this.selected.value.has(item.id) && !item.gone);
  }

  // -- changes as they come ---------------------------------------------------------------------------------

  /** @param {import("./live.js").Change[]} changes */
  follow(changes) {
    let seen = false;
    for (const { name, data, text } of changes) {
      if (name === "resync") return this.reload();
      if (name === "set" && startsWith(data.key, this.base)) {
        seen = this.#put(itemOf(toldInPart(text, "(long)"))) || seen;
      } else if (name === "expiry") {
        const item = this.#byKey.get(idOf(data.key));
        if (item) Object.assign(item, { expires_at: data.expires_at, changedAt: performance.now() });
        seen ||= Boolean(item);
      } else if (name === "delete") seen = this.#remove((key) => idOf(key) === idOf(data.key)) || seen;
      else if (name === "delete_prefix") seen = this.#remove((key) => startsWith(key, data.prefix)) || seen;
    }
    if (!seen) return;
    this.version.value += 1;
    setTimeout(() => {
      this.items = this.items.filter((item) => !item.gone || performance.now() - item.changedAt < MARKED_MILLISECONDS);
      this.version.value += 1;
    }, MARKED_MILLISECONDS + 50);
  }

  /** @param {Item} item */
  #put(item) {
    const old = this.#byKey.get(item.id);
    if (old && old.versionstamp >= item.versionstamp) return false;
    if (!contains(item.metadata, this.metadata)) return old ? this.#remove((key) => idOf(key) === item.id) : false;
    item.changedAt = performance.now();
    if (old) this.items.splice(this.items.indexOf(old), 1);
    const at = this.#placeOf(item);
    if (at === this.items.length && this.next !== null) {
      this.#byKey.delete(item.id);
      return Boolean(old);
    }
    this.items.splice(at, 0, item);
    this.#byKey.set(item.id, item);
    return true;
  }

  /** @param {Item} item */
  #placeOf(item) {
    if (this.order === "newest") return 0;
    if (this.order === "oldest") return this.items.length;
    const at = this.items.findIndex((each) => compareKeys(each.key, item.key) > 0);
    return at < 0 ? this.items.length : at;
  }

  /** @param {(key: Parts) => boolean} concerns */
  #remove(concerns) {
    const gone = this.items.filter((item) => !item.gone && concerns(item.key));
    for (const item of gone) {
      item.gone = true;
      item.changedAt = performance.now();
      this.#byKey.delete(item.id);
    }
    if (gone.some((item) => this.selected.value.has(item.id))) {
      const left = new Set(this.selected.value);
      for (const item of gone) left.delete(item.id);
      this.selected.value = left;
    }
    return gone.length > 0;
  }
}

/** Whether metadata has in it what a filter names, as the server's rule is. @param {string | null} metadata @param {string} filter */
function contains(metadata, filter) {
  if (filter === "") return true;
  if (metadata === null) return false;
  /** @param {any} has @param {any} wanted @returns {boolean} */
  const within = (has, wanted) => {
    if (typeof wanted !== "object" || wanted === null) return has === wanted;
    if (typeof has !== "object" || has === null || Array.isArray(has) !== Array.isArray(wanted)) return false;
    if (Array.isArray(wanted)) return wanted.every((one) => has.some((/** @type {any} */ each) => within(each, one)));
    return Object.entries(wanted).every(([name, one]) => Object.hasOwn(has, name) && within(has[name], one));
  };
  return within(JSON.parse(metadata), JSON.parse(filter));
}
