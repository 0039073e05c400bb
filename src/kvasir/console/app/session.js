// Who is signed in, and what that allows. The key is kept in memory; in this tab's sessionStorage only by choice.

import { batch, computed, signal } from "../vendor/preact.js";
import { getJson, request, said, useKey } from "./api.js";
import { forgetDrafts } from "./opened.js";
import { takeCode } from "./route.js";
import { forgetNotices } from "./ui.js";

const STORED = "kvasir.console";

/** @typedef {import("./api.js").About & { key: string, id: string | null }} Session */

/** @type {import("@preact/signals").Signal<Session | null>} */
export const session = signal(null);

/** Why nobody is signed in, if there is more to say than that. */
export const refusal = signal("");

export const caller = computed(() => session.value?.caller);
export const mayWrite = computed(() => ["developer", "admin", "owner"].includes(caller.value?.role ?? ""));
export const manages = computed(() => ["admin", "owner"].includes(caller.value?.role ?? ""));

/** Of whoever made the drafts and notices on the page, which outlive the end of a key: nobody with others may see them. */
let rights = "";

/** What a key allows. Whoever comes back has another one, as a rule. @param {import("./api.js").Caller} caller */
const rightsOf = ({ organisation, role, spaces, prefix }) => JSON.stringify([organisation, role, spaces, prefix]);

function forgetWork() {
  forgetDrafts();
  forgetNotices();
}

/** What people call the key that is signed in; its id where that is all there is to know. */
export const keyName = signal("");

/** The list of keys, which admins and owners may see, has the name: `GET /v1` says whose id it is. */
async function learnName() {
  const who = caller.value;
  if (!who || !manages.value || !/^[0-9A-HJKMNP-TV-Z]{26}$/.test(who.name)) return;
  try {
    /** @type {{ keys: { id: string, name: string }[] }} */
    const { keys } = await getJson("/keys");
    const name = keys.find(({ id }) => id === who.name)?.name;
    if (name && caller.value === who) keyName.value = name;
  } catch {
    // The id is shown then.
  }
}

/** Whether keys or spaces are open to the caller only in part. */
export const limited = computed(() => Boolean(caller.value?.spaces || caller.value?.prefix));

/**
 * @param {string} key
 * @param {{ id?: string | null, remember?: boolean }} [how] id: of a key that was made for this page alone, by a link
 */
export async function signIn(key, { id = null, remember = false } = {}) {
  useKey(key, () => session.value && forget("The server no longer takes this access key."));
  try {
    const about = await getJson("");
    if (remember) sessionStorage.setItem(STORED, JSON.stringify({ key, id }));
    batch(() => {
      if (rightsOf(about.caller) !== rights) forgetWork();
      rights = rightsOf(about.caller);
      refusal.value = "";
      session.value = { ...about, key, id };
      keyName.value = id === null ? about.caller.name : "console";
    });
    if (id === null) void learnName();
  } catch (error) {
    useKey("", () => {});
    throw error;
  }
}

/** Forget the key and what it was used for, and revoke it if it was made for this page. */
export async function signOut() {
  const id = session.value?.id;
  let why = "";
  if (id) {
    try {
      await request("DELETE", `/keys/${id}`);
    } catch (error) {
      why = `This page has forgotten its key, but could not revoke it: ${said(error)}`;
    }
  }
  batch(() => {
    forget(why);
    forgetWork();
  });
}

/** @param {string} why */
function forget(why) {
  sessionStorage.removeItem(STORED);
  useKey("", () => {});
  batch(() => {
    refusal.value = why;
    session.value = null;
  });
}

/**
 * Sign in by the code of a one-time link, in place of whoever is signed in. A link that is refused takes nothing away.
 * @param {string} code
 */
export async function exchange(code) {
  const made = await (await request("POST", "/console/exchange", { json: { code }, anonymous: true })).json();
  if (session.value) await signOut();
  await signIn(made.key, { id: made.id });
}

/** @param {unknown} error */
export const notByLink = (error) => `This link does not sign you in: ${said(error)}`;

/** What this page was opened with: a one-time link, or what the tab keeps. */
export async function begin() {
  const code = takeCode();
  if (code !== undefined) {
    try {
      await exchange(code);
    } catch (error) {
      refusal.value = notByLink(error);
    }
    return;
  }
  const stored = sessionStorage.getItem(STORED);
  if (stored === null) return;
  try {
    const { key, id } = JSON.parse(stored);
    await signIn(key, { id });
  } catch (error) {
    refusal.value = said(error);
  }
}
