// The door: an access key is pasted, or came by a one-time link.

import { useState } from "../vendor/preact.js";
import { Problem, said } from "./api.js";
import { html } from "./html.js";
import { unsaved } from "./opened.js";
import { refusal, signIn } from "./session.js";
import { Failure, Notices } from "./ui.js";
import { saidUnsaved } from "./unsaved.js";

export function SignIn() {
  const [key, setKey] = useState("");
  const [remember, setRemember] = useState(false);
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState("");

  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    const trimmed = key.trim();
    if (!/^[\x21-\x7e]+$/.test(trimmed)) return setFailure("Paste an access key: one word, without spaces.");
    setBusy(true);
    refusal.value = "";
    try {
      await signIn(trimmed, { remember });
    } catch (error) {
      setFailure(
        error instanceof Problem && error.status === 401 ? "The server does not know this access key." : said(error),
      );
      setBusy(false);
    }
  };

  return html`<main class="door">
    <form class="card" onSubmit=${submit}>
      <h1>Kvasir</h1>
      ${refusal.value && html`<${Failure} text=${refusal.value} />`}
      ${
        unsaved.value.length > 0 &&
        html`<p>
          Kept for an access key with the same rights: ${saidUnsaved()}. Whoever signs in with others begins anew.
        </p>`
      }
      <div class="field">
        <label for="access-key">Access key</label>
        <input
          id="access-key"
          type="password"
          class="mono"
          autocomplete="off"
          autofocus
          spellcheck=${false}
          value=${key}
          onInput=${(/** @type {any} */ event) => setKey(event.currentTarget.value)}
        />
      </div>
      <label class="choice"
        ><input
          type="checkbox"
          aria-describedby="where-kept"
          checked=${remember}
          onChange=${(/** @type {any} */ event) => setRemember(event.currentTarget.checked)}
        />
        Stay signed in until this tab is closed</label
      >
      <p class="soft" id="where-kept">The browser then keeps the key in the storage of this tab.</p>
      ${failure && html`<${Failure} text=${failure} />`}
      <button class="primary" disabled=${busy || key.trim() === ""}>${busy ? "Signing in …" : "Sign in"}</button>
      <p class="soft">
        <code>kvasir console</code> on the server opens this page signed in. The key is in no cookie and no address, and
        otherwise in the memory of this page alone.
      </p>
      <p class="soft"><a href="/docs/v1">API reference</a></p>
    </form>
    <${Notices} />
  </main>`;
}
