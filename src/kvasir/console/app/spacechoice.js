// Spaces by their names where some are chosen or named.

import { useEffect } from "../vendor/preact.js";
import { html } from "./html.js";
import { caller } from "./session.js";
import { KINDS, kinds, loadAllKinds, spaceOf } from "./spaces.js";
import { Text } from "./ui.js";

/** @param {{ ids: string[] | null, all?: string }} props */
export function SpaceNames({ ids, all = "all spaces" }) {
  useEffect(() => {
    if (ids && kinds.value.store === undefined) void loadAllKinds();
  }, []);
  if (ids === null) return all;
  return html`${ids.map((id, at) => html`${at > 0 && ", "}<${Text} text=${spaceOf(id)?.name || id} most=${60} />`)}`;
}

/**
 * What was chosen, to be sent: null is all, those to come too, so none must not become that.
 * @param {string[] | null} chosen @param {string} [kind]
 */
export function someOrAll(chosen, kind = "space") {
  if (chosen?.length === 0) throw new Error(`Choose at least one ${kind}.`);
  return chosen;
}

/**
 * All spaces, or some. What there is to choose from is what has been loaded of each kind.
 * @param {{ chosen: string[] | null, onChange: (chosen: string[] | null) => void, kind?: string }} props
 */
export function SpaceChoice({ chosen, onChange, kind }) {
  useEffect(() => {
    if (kinds.value.store === undefined) void loadAllKinds();
  }, []);
  const open = KINDS.filter((each) => kind === undefined || each === kind).flatMap(
    (each) => kinds.value[each]?.found ?? [],
  );
  const mayAll = !caller.value?.spaces;
  /** @param {string} id */
  const turn = (id) => onChange(chosen?.includes(id) ? chosen.filter((each) => each !== id) : [...(chosen ?? []), id]);
  return html`<fieldset>
    <legend>${kind === "application" ? "Applications" : "Spaces"}</legend>
    ${
      mayAll &&
      html`<label class="choice"
        ><input type="radio" name="which" checked=${chosen === null} onChange=${() => onChange(null)} /> all, those to
        come too</label
      >`
    }
    <label class="choice"
      ><input
        type="radio"
        name="which"
        checked=${chosen !== null}
        onChange=${() => onChange(caller.value?.spaces ?? [])}
      />
      only</label
    >
    ${
      chosen !== null &&
      html`<div class="choices">
        ${open.map(
          (space) =>
            html`<label key=${space.id} class="choice"
              ><input type="checkbox" checked=${chosen.includes(space.id)} onChange=${() => turn(space.id)} />
              <${Text} text=${space.name || space.id} most=${60} /> <i>${space.kind}</i></label
            >`,
        )}
        ${open.length === 0 && html`<p class="soft">none</p>`}
      </div>`
    }
  </fieldset>`;
}
