// Entries as they are stored, read and written through /v1. Values and metadata are texts from end to end.

import { getJson, getText, Problem, request } from "./api.js";
import { serverClock } from "./clock.js";
import { itemsOf, membersOf } from "./spans.js";

/** @typedef {import("./keys.js").Parts} Parts */
/**
 * An entry; text and metadata are the JSON that is stored, and refresh is the length of a sliding life.
 * @typedef {{ key: Parts, text: string, metadata: string | null, versionstamp: string, created_at: string,
 *   expires_at: string | null, refresh: number | null }} Entry
 */

/** @param {Record<string, string>} members of the JSON of an entry @returns {Entry} */
function entryOf(members) {
  const parsed = (/** @type {string} */ name) => JSON.parse(members[name] ?? "null");
  return {
    key: parsed("key"),
    text: members.value ?? (members.text === undefined ? "" : JSON.parse(members.text)),
    metadata: members.metadata === undefined || members.metadata === "null" ? null : members.metadata,
    versionstamp: parsed("versionstamp"),
    created_at: parsed("created_at"),
    expires_at: parsed("expires_at"),
    refresh: parsed("refresh"),
  };
}

/** The entry of a `set` that a watch told; null if its text was too long to be told. @param {string} data */
export function toldEntry(data) {
  const members = membersOf(data);
  return members.text === undefined ? null : entryOf(members);
}

/** The same with a text to stand for one that is too long. @param {string} data @param {string} instead @returns {Entry} */
export const toldInPart = (data, instead) => toldEntry(data) ?? { ...entryOf(membersOf(data)), text: instead };

/**
 * Looking changes nothing: sliding lives are not extended.
 * @param {string} space
 * @param {Parts} key
 * @param {AbortSignal} [signal]
 * @returns {Promise<Entry | null>}
 */
export async function read(space, key, signal) {
  try {
    const query = { key, form: "entry", extend: false };
    return entryOf(membersOf(await getText(`/spaces/${space}/entry`, { query, signal })));
  } catch (error) {
    if (error instanceof Problem && error.code === "not_found") return null;
    throw error;
  }
}

/**
 * A page of entries with their texts.
 * @param {string} space
 * @param {import("./api.js").Query} query
 * @param {AbortSignal} [signal]
 */
export async function page(space, query, signal) {
  const members = membersOf(await getText(`/spaces/${space}/entries`, { query, signal }));
  return {
    entries: itemsOf(members.entries).map((text) => entryOf(membersOf(text))),
    next: /** @type {string | null} */ (JSON.parse(members.next)),
  };
}

/** @param {string} space @param {Parts} prefix @param {AbortSignal} [signal] @returns {Promise<number>} */
export async function countBelow(space, prefix, signal) {
  const query = prefix.length ? { prefix } : { all: true };
  return (await getJson(`/spaces/${space}/count`, { query, signal })).count;
}

/**
 * Replace a value over the versionstamp that it was read with (null: only if the key does not exist). What is not said
 * of life and metadata stays. Raises `Problem` with status 412 if somebody was faster.
 * @param {string} space
 * @param {Parts} key
 * @param {string} text
 * @param {string | null} versionstamp
 * @param {{ ttl?: string, expires_at?: string | null, metadata?: string | null }} [more] for a new key
 */
export async function write(space, key, text, versionstamp, { ttl, expires_at, metadata } = {}) {
  if (metadata) return await set(space, key, text, versionstamp, { ttl, expires_at, metadata });
  const query = { key, keep: versionstamp === null ? null : "expiry,metadata", ttl, expires_at };
  /** @type {Record<string, string>} */
  const condition = versionstamp === null ? { "If-None-Match": "*" } : { "If-Match": `"${versionstamp}"` };
  await request("PUT", `/spaces/${space}/entry`, {
    query,
    body: text,
    headers: { "Content-Type": "application/json", ...condition },
  });
}

/**
 * The same as a transaction, with all that an entry has.
 * @param {string} space
 * @param {Parts} key
 * @param {string} text
 * @param {string | null} versionstamp
 * @param {{ ttl?: string, expires_at?: string | null, refresh?: boolean, metadata?: string | null, keep?: string[] }} more
 */
export async function set(space, key, text, versionstamp, { metadata, expires_at, ...more }) {
  const mutation = JSON.stringify({ type: "set", key, text, ...more, ...(expires_at ? { expires_at } : {}) });
  // Metadata goes in as the text that it is.
  const whole = metadata ? `${mutation.slice(0, -1)},"metadata":${metadata}}` : mutation;
  const check = JSON.stringify({ key, versionstamp });
  await request("POST", `/spaces/${space}/atomic`, {
    body: `{"checks":[${check}],"mutations":[${whole}]}`,
    headers: { "Content-Type": "application/json" },
  });
}

/** When an entry ends, and nothing else. @param {string} space @param {Parts} key @param {object} end ttl or expires_at */
export async function touch(space, key, end) {
  const json = { checks: [{ key, present: true }], mutations: [{ type: "touch", key, ...end }] };
  await request("POST", `/spaces/${space}/atomic`, { json });
}

/** Remove the version that was seen, and no other. @param {string} space @param {Entry} entry */
export async function remove(space, entry) {
  const headers = { "If-Match": `"${entry.versionstamp}"` };
  await request("DELETE", `/spaces/${space}/entry`, { query: { key: entry.key }, headers });
}

// A transaction has at most 1,000 checks and mutations together.
const AT_ONCE = 500;

/**
 * Remove what was seen of each, in as few transactions as may be. Raises `Problem` 412 if one has changed.
 * @param {string} space
 * @param {{ key: Parts, versionstamp: string }[]} entries
 * @param {(done: number) => void} told how many are gone after each transaction
 */
export async function removeAll(space, entries, told) {
  for (let at = 0; at < entries.length; at += AT_ONCE) {
    const some = entries.slice(at, at + AT_ONCE);
    const json = {
      checks: some.map(({ key, versionstamp }) => ({ key, versionstamp })),
      mutations: some.map(({ key }) => ({ type: "delete", key })),
    };
    await request("POST", `/spaces/${space}/atomic`, { json });
    told(at + some.length);
  }
}

/** Remove all below a prefix if there are so many. @param {string} space @param {Parts} prefix @param {number} expect */
export async function removeBelow(space, prefix, expect) {
  const query = prefix.length ? { prefix, expect } : { all: true, expect };
  const response = await request("DELETE", `/spaces/${space}/entries`, { query });
  return Number(response.headers.get("Kvasir-Count"));
}

/** Whether the end of an entry has passed. One of a sliding life begins anew with it. @param {Entry} entry */
export const hasEnded = ({ expires_at, refresh }) =>
  refresh === null && expires_at !== null && Date.parse(expires_at) <= serverClock.now();

/**
 * Make an entry that was there again, unless the key has come back meanwhile. An end that has passed is left out.
 * @param {string} space
 * @param {Entry} entry
 */
export async function restore(space, entry) {
  const { key, text, metadata, expires_at, refresh } = entry;
  const end = hasEnded(entry) ? {} : { expires_at };
  await set(space, key, text, null, { ...(refresh === null ? end : { ttl: `${refresh}ms`, refresh: true }), metadata });
}
