// Fields of forms.

import { html } from "./html.js";

/**
 * @param {{ label: string, value: string, onInput: (text: string) => void, hint?: string, lines?: number,
 *   mono?: boolean, type?: string, id?: string, placeholder?: string }} props
 */
export function TextField({
  label,
  value,
  onInput,
  hint = "",
  lines = 1,
  mono = false,
  type = "text",
  id = "",
  placeholder = "",
}) {
  const own = id || `field-${label.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  const attributes = {
    id: own,
    value,
    placeholder,
    class: mono ? "mono" : "",
    spellcheck: false,
    autocomplete: "off",
    "aria-describedby": hint ? `${own}-hint` : undefined,
    onInput: (/** @type {any} */ event) => onInput(event.currentTarget.value),
  };
  return html`<div class="field">
    <label for=${own}>${label}</label>
    ${lines > 1 ? html`<textarea rows=${lines} ...${attributes}></textarea>` : html`<input type=${type} ...${attributes} />`}
    ${hint && html`<p class="soft" id=${`${own}-hint`}>${hint}</p>`}
  </div>`;
}

/** @param {{ label: string, value: string, choices: [string, string][], onChange: (value: string) => void }} props */
export function Choice({ label, value, choices, onChange }) {
  return html`<label class="field"
    ><span>${label}</span>
    <select value=${value} onChange=${(/** @type {any} */ event) => onChange(event.currentTarget.value)}>
      ${choices.map(([name, text]) => html`<option value=${name}>${text}</option>`)}
    </select></label
  >`;
}
