// One-time links that come while the page is open: pasted into its address, as a rule.

import { onLink } from "./route.js";
import { exchange, notByLink, refusal, session } from "./session.js";
import { tell } from "./ui.js";
import { askToLose } from "./unsaved.js";

const WORDS = {
  title: "Sign in by this link",
  label: "Sign in",
  more: "The page begins anew. A link is good for a minute from when it was made.",
};

/** What is kept for a key that has ended is not lost by a link of the same rights; the page to sign in on says so. */
export const listenToLinks = () =>
  onLink((code) => (session.value ? askToLose(WORDS, () => follow(code)) : void follow(code)));

/** @param {string} code */
async function follow(code) {
  try {
    await exchange(code);
  } catch (error) {
    if (session.value) tell(notByLink(error), { bad: true });
    else refusal.value = notByLink(error);
  }
}
