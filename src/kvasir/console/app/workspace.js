// What is on screen of a space: its tree or list, the entry that is open, and the changes that come to both.
// Follows the address; nothing else makes or ends these.

import { effect, signal, untracked } from "../vendor/preact.js";
import { idOf, startsWith } from "./keys.js";
import { Listing } from "./listing.js";
import { Live } from "./live.js";
import { Opened } from "./opened.js";
import { go, route } from "./route.js";
import { caller, session } from "./session.js";
import { spaceEnded } from "./spaces.js";
import { Tree } from "./tree.js";

/** @template T @typedef {import("@preact/signals").Signal<T | null>} Maybe */

/** @type {Maybe<Tree>} */
export const tree = signal(null);
/** @type {Maybe<Listing>} */
export const listing = signal(null);
/** @type {Maybe<Opened>} */
export const opened = signal(null);
/** @type {Maybe<Live>} */
export const live = signal(null);

/** Paused for good, until somebody says otherwise. */
export const paused = signal(false);

/** Nobody looks: browsers open six connections to a host over HTTP/1.1, and each watch takes one of all tabs. */
const resting = signal(false);

const HIDDEN_MILLISECONDS = 5_000;

/** Rest some time after the page is hidden; what has changed until it is shown is told then. */
function restWhileHidden() {
  let timer = 0;
  const look = () => {
    clearTimeout(timer);
    if (document.visibilityState === "visible") resting.value = false;
    else timer = setTimeout(() => (resting.value = true), HIDDEN_MILLISECONDS);
  };
  document.addEventListener("visibilitychange", look);
  look();
}

/** Keeps one thing for as long as what it is of stays the same. */
class Kept {
  #id = "";

  /** @param {Maybe<any>} held @param {string} id "" for none @param {() => any} make @param {(old: any) => void} end */
  hold(held, id, make, end) {
    if (id === this.#id) return;
    this.#id = id;
    if (held.value) end(held.value);
    held.value = id === "" ? null : make();
  }
}

/** The parts that every key of this caller begins with. */
export const ownBase = () => caller.value?.prefix ?? [];

export function followRoute() {
  restWhileHidden();
  const kept = { tree: new Kept(), listing: new Kept(), opened: new Kept(), live: new Kept() };
  effect(() => {
    const who = session.value?.key ?? "";
    const { page, space, view, base, key } = route.value;
    const isPaused = paused.value || resting.value;
    const own = ownBase();
    if (who && page === "data" && space && !startsWith(base, own)) return go({ base: own }, { replace: true });
    untracked(() => {
      const here = who && page === "data" && space ? `${who} ${space}` : "";
      const end = (/** @type {{ close: () => void }} */ old) => old.close();
      const based = here && `${here} ${idOf(base)}`;
      const id = /** @type {string} */ (space);
      kept.tree.hold(tree, view === "tree" ? based : "", () => new Tree(id, base), end);
      kept.listing.hold(listing, view === "list" ? based : "", () => new Listing(id, base), end);
      kept.opened.hold(opened, here && key ? `${here} ${idOf(key)}` : "", () => new Opened(id, key ?? []), end);
      // Paused, it stays to be gone on with.
      kept.live.hold(
        live,
        here,
        () => new Live(id, ownBase(), tellAll, () => void spaceEnded(id)),
        (old) => old.stop(),
      );
      if (isPaused) live.value?.pause();
      else live.value?.start();
    });
  });
}

/** @param {import("./live.js").Change[]} changes */
function tellAll(changes) {
  tree.value?.follow(changes);
  listing.value?.follow(changes);
  opened.value?.follow(changes);
}
