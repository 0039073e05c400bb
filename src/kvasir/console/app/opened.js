// The entry that is open: what the server has, what somebody is writing over it, and how the two meet.
// Drafts outlive looking elsewhere; no answer and no change of others touches one.

import { computed, signal } from "../vendor/preact.js";
import { isAbort, Problem, said } from "./api.js";
import { read, restore, toldEntry, write } from "./entries.js";
import { idOf, sameKey, startsWith } from "./keys.js";

/** @typedef {import("./keys.js").Parts} Parts */
/** @typedef {import("./entries.js").Entry} Entry */
/**
 * @typedef {{ space: string, key: Parts, base: Entry | null, text: string, changed: boolean,
 *   turn: number, theirs: Entry | null | undefined,
 *   more: { ttl?: string, expires_at?: string | null, metadata?: string | null } }} Draft
 * base: what it was begun from; turn: how often its text was set other than by typing; theirs: what stands in its way,
 * null if that is a removal; more: of a new key
 */

/** @type {import("@preact/signals").Signal<ReadonlyMap<string, Draft>>} */
export const drafts = signal(new Map());
export const unsaved = computed(() => [...drafts.value.values()].filter((draft) => draft.changed));

/** @param {string} space @param {Parts} key */
const place = (space, key) => `${space} ${idOf(key)}`;

/** @param {string} space @param {Parts} key */
export const draftOf = (space, key) => drafts.value.get(place(space, key));

/** @param {Draft} draft */
export const keepDraft = (draft) => (drafts.value = new Map(drafts.value).set(place(draft.space, draft.key), draft));

/** @param {Draft} draft */
export function dropDraft({ space, key }) {
  const left = new Map(drafts.value);
  left.delete(place(space, key));
  drafts.value = left;
}

export const forgetDrafts = () => (drafts.value = new Map());

/** Begin to write over an entry, or a new one. @param {string} space @param {Parts} key @param {Entry | null} base */
export const beginDraft = (space, key, base, text = base?.text ?? "", more = {}) =>
  keepDraft({ space, key, base, text, changed: base === null, turn: 0, theirs: undefined, more });

/**
 * @param {Draft} draft
 * @returns {Promise<"saved" | "conflict">} Raises what else went wrong; the draft is there still.
 */
export async function saveDraft(draft) {
  const { space, key, text } = draft;
  const over = draft.theirs === undefined ? draft.base : draft.theirs;
  try {
    if (over || !draft.base) await write(space, key, text, over?.versionstamp ?? null, over ? {} : draft.more);
    else await restore(space, { ...draft.base, text });
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 412) throw error;
    const theirs = await read(space, key);
    // An earlier try whose answer was lost may have done it.
    if (theirs?.text !== text) {
      keepDraft({ ...draft, theirs, turn: draft.turn + 1 });
      return "conflict";
    }
  }
  dropDraft(draft);
  return "saved";
}

/** How long a change stays marked. */
const MARKED_MILLISECONDS = 2_500;

export class Opened {
  /** undefined: not known yet; null: there is none. @type {import("@preact/signals").Signal<Entry | null | undefined>} */
  entry = signal(/** @type {Entry | null | undefined} */ (undefined));
  failure = signal("");
  /** Whether others have just changed it. */
  marked = signal(false);
  #asked = new AbortController();
  #timer = 0;

  /** @param {string} space @param {Parts} key */
  constructor(space, key) {
    this.space = space;
    this.key = key;
    void this.load();
  }

  close() {
    this.#asked.abort();
    clearTimeout(this.#timer);
  }

  async load() {
    try {
      this.failure.value = "";
      this.#take(await read(this.space, this.key, this.#asked.signal), false);
    } catch (error) {
      if (!isAbort(error)) this.failure.value = said(error);
    }
  }

  /** @param {Entry | null} entry @param {boolean} mark */
  #take(entry, mark) {
    const known = this.entry.value;
    // Answers and changes overtake each other.
    if (known && entry && known.versionstamp > entry.versionstamp) return;
    if (mark && known?.versionstamp !== entry?.versionstamp) this.#mark();
    this.entry.value = entry;
  }

  #mark() {
    this.marked.value = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.marked.value = false), MARKED_MILLISECONDS);
  }

  /** @param {import("./live.js").Change[]} changes */
  follow(changes) {
    for (const { name, data, text } of changes) {
      if (name === "set" && sameKey(data.key, this.key)) {
        const told = toldEntry(text);
        if (told) this.#take(told, true);
        else void this.load().then(() => this.#mark());
      } else if (name === "expiry" && sameKey(data.key, this.key)) {
        if (this.entry.value) {
          this.entry.value = { ...this.entry.value, expires_at: data.expires_at };
          this.#mark();
        }
      } else if (
        name === "delete" ? sameKey(data.key, this.key) : name === "delete_prefix" && startsWith(this.key, data.prefix)
      ) {
        this.#take(null, true);
      } else if (name === "resync") void this.load();
    }
  }
}
