// Where the page is: in the fragment of its address, which no request and no Referer carries.
//
//   #/s/<space>/tree/<parts of the base>;/<parts of the key>     also list in place of tree
//   #/plots, #/access, #/accounts, #/spaces

import { signal } from "../vendor/preact.js";

/**
 * @typedef {import("./keys.js").Parts} Parts
 * @typedef {{ page: string, space: string | null, view: "tree" | "list", base: Parts, key: Parts | null }} Route
 */

/** Each part has a slash before it, so that empty ones differ from none. @param {Parts} parts */
const pathOf = (parts) => parts.map((part) => `/${encodeURIComponent(part.toWellFormed())}`).join("");

/** @param {string} path @returns {Parts} */
const partsOf = (path) => (path === "" ? [] : path.slice(1).split("/").map(decodeURIComponent));

/** @param {string} fragment @returns {Route} */
export function parse(fragment) {
  /** @type {Route} */
  const nowhere = { page: "data", space: null, view: "tree", base: [], key: null };
  const [place, key] = fragment.replace(/^#/, "").split(";");
  const found = /^\/s\/([0-9A-Za-z]{26})(?:\/(tree|list)(\/.*)?)?$/s.exec(place);
  try {
    if (found) {
      const view = found[2] === "list" ? "list" : "tree";
      const parts = key === undefined ? null : partsOf(key);
      return { page: "data", space: found[1].toUpperCase(), view, base: partsOf(found[3] ?? ""), key: parts };
    }
  } catch {
    return nowhere; // no percent-encoding
  }
  const page = /^\/(plots|access|accounts|spaces)$/.exec(place);
  return page ? { ...nowhere, page: page[1] } : nowhere;
}

/** @param {Route} route */
export function fragment({ page, space, view, base, key }) {
  if (page !== "data") return `#/${page}`;
  if (space === null) return "#/";
  return `#/s/${space}/${view}${pathOf(base)}${key === null ? "" : `;${pathOf(key)}`}`;
}

export const route = signal(parse(location.hash));

/** What is done with the code of a one-time link. @type {(code: string) => void} */
let whenLinked = () => {};

/** @param {(code: string) => void} does */
export const onLink = (does) => (whenLinked = does);

/** The code of a one-time link, if the address has one. It leaves that at once: it must be in no history. */
export function takeCode() {
  const code = /^#code=(.+)$/s.exec(location.hash)?.[1];
  if (code !== undefined) history.replaceState(null, "", fragment(route.value));
  return code;
}

/** Wherever somebody has led the page. */
function follow() {
  const code = takeCode();
  if (code === undefined) route.value = parse(location.hash);
  else whenLinked(code);
}

addEventListener("hashchange", follow);
addEventListener("popstate", follow);

/** Go somewhere; what is not said stays. @param {Partial<Route>} changes @param {{ replace?: boolean }} [how] */
export function go(changes, { replace = false } = {}) {
  const next = { ...route.value, ...changes };
  if (fragment(next) === fragment(route.value)) return;
  history[replace ? "replaceState" : "pushState"](null, "", fragment(next));
  route.value = next;
}
