// What the views of administration share: a list that is asked for, a secret that is shown once.

import { useEffect, useState } from "../vendor/preact.js";
import { isAbort, said } from "./api.js";
import { html } from "./html.js";
import { closeDialog, copy, Dialog, Failure, Icon, Loading } from "./ui.js";

/**
 * Something asked for when the view opens, and again by `ask`.
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} get
 */
export function useLoaded(get) {
  const [found, setFound] = useState(/** @type {T | null} */ (null));
  const [failure, setFailure] = useState("");
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const asked = new AbortController();
    get(asked.signal).then(
      (value) => {
        setFound(value);
        setFailure("");
      },
      (error) => !isAbort(error) && setFailure(said(error)),
    );
    return () => asked.abort();
  }, [turn]);
  return { found, failure, ask: () => setTurn((before) => before + 1) };
}

/** @param {{ title: string, loaded: ReturnType<typeof useLoaded>, action: any, children?: any }} props */
export function Sheet({ title, loaded: { found, failure, ask }, action, children }) {
  return html`<main class="sheet">
    <header class="sheet-head">
      <h1>${title}</h1>
      ${action}
    </header>
    ${failure && html`<${Failure} text=${failure} /><button onClick=${ask}>Try again</button>`}
    ${found === null && !failure && html`<${Loading} />`} ${found !== null && children}
  </main>`;
}

/**
 * A secret in the only answer that has it.
 * @param {{ title: string, secret: string, label: string, children?: any }} props
 */
export function Secret({ title, secret, label, children }) {
  return html`<${Dialog} title=${title} onSubmit=${closeDialog} wide>
    <p><b>It is shown this once.</b> Only a hash of it is kept, so nobody can show it again.</p>
    <div class="secret">
      <textarea readonly rows=${secret.includes("\n") ? 6 : 2} class="mono" aria-label=${label}>${secret}</textarea>
      <button type="button" onClick=${() => void copy(secret, label)}><${Icon} name="copy" /> Copy</button>
    </div>
    ${children}
    <div class="buttons"><button class="primary">I have kept it</button></div>
  <//>`;
}
