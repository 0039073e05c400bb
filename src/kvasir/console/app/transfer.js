// What export and import share: how far they are, and a file that is saved.

import { html } from "./html.js";

/** @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.-]+/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** @param {{ label: string, value: number, most: number | null, text: string }} props */
export function Progress({ label, value, most, text }) {
  const bounds = most ? { value: Math.min(value, most), max: most } : {};
  return html`<div class="progress"><progress aria-label=${label} ...${bounds}></progress><span>${text}</span></div>`;
}
