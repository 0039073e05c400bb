// Access keys: listed, made and revoked, as far as the key that is signed in may.

import { useState } from "../vendor/preact.js";
import { getJson, request } from "./api.js";
import { Buttons, useLife, useWork } from "./changes.js";
import { now } from "./clock.js";
import { Choice, TextField } from "./fields.js";
import { duration, moment } from "./format.js";
import { html } from "./html.js";
import { keyText, parseKey } from "./keys.js";
import { caller } from "./session.js";
import { Secret, Sheet, useLoaded } from "./sheet.js";
import { someOrAll, SpaceChoice, SpaceNames } from "./spacechoice.js";
import { closeDialog, Dialog, Icon, KeyText, openDialog, tell, Text } from "./ui.js";

/**
 * @typedef {{ id: string, name: string, role: string, spaces: string[] | null, prefix: string[] | null,
 *   created_at: string, expires_at: string | null, key?: string }} AccessKey
 */

const ROLES = ["viewer", "developer", "admin", "owner"];

/** The roles up to the caller's own. */
const rolesBelow = () => ROLES.slice(0, ROLES.indexOf(caller.value?.role ?? "") + 1);

export function AccessKeys() {
  const loaded = useLoaded(async (signal) => /** @type {AccessKey[]} */ ((await getJson("/keys", { signal })).keys));
  const make = () => openDialog(() => html`<${MakeKey} done=${loaded.ask} />`);
  return html`<${Sheet}
    title="Access keys"
    loaded=${loaded}
    action=${html`<button class="primary" onClick=${make}><${Icon} name="plus" /> New access key</button>`}
  >
    <div class="table" tabindex="0" role="region" aria-label="Access keys">
      <table>
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">Role</th>
            <th scope="col">Opens</th>
            <th scope="col">Created</th>
            <th scope="col">Expires</th>
            <td></td>
          </tr>
        </thead>
        <tbody>
          ${loaded.found?.map((key) => html`<${Row} key=${key.id} of=${key} done=${loaded.ask} />`)}
        </tbody>
      </table>
    </div>
  <//>`;
}

/** @param {{ of: AccessKey, done: () => void }} props */
function Row({ of: key, done }) {
  const own = caller.value?.name === key.id;
  const over = key.expires_at !== null && Date.parse(key.expires_at) <= now.value;
  const revoke = () => openDialog(() => html`<${Revoke} of=${key} done=${done} />`);
  return html`<tr class=${over ? "over" : ""}>
    <th scope="row"><${Text} text=${key.name} most=${80} /> ${own && html`<i>this page</i>`}</th>
    <td>${key.role}</td>
    <td><${SpaceNames} ids=${key.spaces} />${key.prefix && html`, below <${KeyText} parts=${key.prefix} />`}</td>
    <td title=${key.created_at}>${moment(key.created_at)}</td>
    <td title=${key.expires_at ?? ""}>
      ${key.expires_at === null ? "never" : over ? "has expired" : `in ${duration(Date.parse(key.expires_at) - now.value)}`}
    </td>
    <td>
      ${
        !own &&
        rolesBelow().includes(key.role) &&
        html`<button class="danger" onClick=${revoke} aria-label=${`Revoke ${key.name}`}>Revoke</button>`
      }
    </td>
  </tr>`;
}

/** @param {{ of: AccessKey, done: () => void }} props */
function Revoke({ of: key, done }) {
  const work = useWork(async () => {
    await request("DELETE", `/keys/${key.id}`);
    closeDialog();
    done();
    tell("The access key is revoked.");
  });
  return html`<${Dialog} title="Revoke an access key" onSubmit=${work.run} busy=${work.busy}>
    <p>
      Whoever uses <b><${Text} text=${key.name} most=${200} /></b> is refused from then on. This cannot be undone.
    </p>
    <${Buttons} work=${work} label="Revoke" danger />
  <//>`;
}

/** @param {{ done: () => void }} props */
function MakeKey({ done }) {
  const who = caller.value;
  const [name, setName] = useState("");
  const [role, setRole] = useState("viewer");
  const [spaces, setSpaces] = useState(/** @type {string[] | null} */ (who?.spaces ?? null));
  const [prefix, setPrefix] = useState(who?.prefix ? keyText(who.prefix) : "");
  // What is made must not outlive its maker.
  const life = useLife(who?.expires_at ? "in" : "never", who?.expires_at ? "1" : "90", who?.expires_at ? "h" : "d");
  const work = useWork(async () => {
    const parts = prefix.trim() === "" ? null : parseKey(prefix);
    const json = { name, role, spaces: someOrAll(spaces), prefix: parts, ...life.end() };
    /** @type {AccessKey} */
    const made = await (await request("POST", "/keys", { json })).json();
    done();
    openDialog(() => html`<${Secret} title="The new access key" label="Access key" secret=${made.key ?? ""} />`);
  });
  return html`<${Dialog} title="New access key" onSubmit=${work.run} busy=${work.busy}>
    <${TextField} label="Name" value=${name} onInput=${setName} hint="Says who uses it, in lists and logs." />
    <${Choice}
      label="Role"
      value=${role}
      onChange=${setRole}
      choices=${rolesBelow().map((each) => [each, WHAT[each]])}
    />
    <${SpaceChoice} chosen=${spaces} onChange=${setSpaces} />
    <${TextField} label="Only keys below (optional)" mono value=${prefix} onInput=${setPrefix} placeholder="products" />
    ${life.fields}
    <${Buttons} work=${work} label="Make the key" disabled=${name.trim() === ""} />
  <//>`;
}

/** @type {Record<string, string>} */
const WHAT = {
  viewer: "viewer: reads",
  developer: "developer: reads and writes",
  admin: "admin: also spaces and credentials",
  owner: "owner: everything",
};
