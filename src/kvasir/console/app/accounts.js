// Service accounts of the Voximplant API: listed, made and revoked. Their credentials are a file for its clients.

import { useState } from "../vendor/preact.js";
import { getJson, request } from "./api.js";
import { Buttons, useWork } from "./changes.js";
import { TextField } from "./fields.js";
import { moment } from "./format.js";
import { html } from "./html.js";
import { caller, limited } from "./session.js";
import { Secret, Sheet, useLoaded } from "./sheet.js";
import { someOrAll, SpaceChoice, SpaceNames } from "./spacechoice.js";
import { save } from "./transfer.js";
import { closeDialog, Dialog, Icon, openDialog, tell, Text } from "./ui.js";

/**
 * @typedef {{ id: string, account_id: number, roles: string[], applications: string[] | null, description: string,
 *   created_at: string }} Account
 */

/** Voximplant's names of roles, and what they allow here. @type {[string, string][]} */
const ROLES = [
  ["KV Reader", "reads"],
  ["Developer", "reads and writes"],
  ["Admin", "also administers"],
  ["Owner", "everything"],
];

export function Accounts() {
  const loaded = useLoaded(
    async (signal) => /** @type {Account[]} */ ((await getJson("/service-accounts", { signal })).service_accounts),
  );
  // One that is limited or ends could make none that is not.
  const mayMake = !limited.value && !caller.value?.expires_at;
  const make = () => openDialog(() => html`<${Make} done=${loaded.ask} />`);
  return html`<${Sheet}
    title="Service accounts"
    loaded=${loaded}
    action=${mayMake && html`<button class="primary" onClick=${make}><${Icon} name="plus" /> New service account</button>`}
  >
    <p class="soft">For the Voximplant API. ${!mayMake && "A key that is limited or expires cannot make one."}</p>
    ${
      loaded.found?.length === 0
        ? html`<p class="empty">There are none yet.</p>`
        : html`<div class="table" tabindex="0" role="region" aria-label="Service accounts">
            <table>
              <thead>
                <tr>
                  <th scope="col">Id</th>
                  <th scope="col">Description</th>
                  <th scope="col">Roles</th>
                  <th scope="col">Applications</th>
                  <th scope="col">Created</th>
                  <td></td>
                </tr>
              </thead>
              <tbody>
                ${loaded.found?.map((account) => html`<${Row} key=${account.id} of=${account} done=${loaded.ask} />`)}
              </tbody>
            </table>
          </div>`
    }
  <//>`;
}

/** @param {{ of: Account, done: () => void }} props */
function Row({ of: account, done }) {
  const revoke = () => openDialog(() => html`<${Revoke} of=${account} done=${done} />`);
  return html`<tr>
    <th scope="row"><code>${account.id}</code></th>
    <td>${account.description ? html`<${Text} text=${account.description} most=${120} />` : html`<i>none</i>`}</td>
    <td>${account.roles.join(", ")}</td>
    <td><${SpaceNames} ids=${account.applications} all="all" /></td>
    <td title=${account.created_at}>${moment(account.created_at)}</td>
    <td><button class="danger" onClick=${revoke} aria-label=${`Revoke ${account.id}`}>Revoke</button></td>
  </tr>`;
}

/** @param {{ of: Account, done: () => void }} props */
function Revoke({ of: account, done }) {
  const work = useWork(async () => {
    await request("DELETE", `/service-accounts/${account.id}`);
    closeDialog();
    done();
    tell("The service account is revoked.");
  });
  return html`<${Dialog} title="Revoke a service account" onSubmit=${work.run} busy=${work.busy}>
    <p>Whoever uses <code>${account.id}</code> is refused from then on. This cannot be undone.</p>
    <${Buttons} work=${work} label="Revoke" danger />
  <//>`;
}

/** @param {{ done: () => void }} props */
function Make({ done }) {
  const [roles, setRoles] = useState(["Developer"]);
  const [applications, setApplications] = useState(/** @type {string[] | null} */ (null));
  const [description, setDescription] = useState("");
  const open = caller.value?.role === "owner" ? ROLES : ROLES.slice(0, -1);
  const work = useWork(async () => {
    const json = { roles, applications: someOrAll(applications, "application"), description };
    const text = await (await request("POST", "/service-accounts", { json })).text();
    done();
    openDialog(
      () =>
        html`<${Secret} title="The new service account" label="Credentials" secret=${text}>
          <button
            type="button"
            onClick=${() => save(new Blob([text], { type: "application/json" }), "credentials.json")}
          >
            <${Icon} name="download" /> Save as credentials.json
          </button>
        <//>`,
    );
  });
  return html`<${Dialog} title="New service account" onSubmit=${work.run} busy=${work.busy}>
    <${TextField} label="Description (optional)" value=${description} onInput=${setDescription} />
    <fieldset>
      <legend>Roles</legend>
      ${open.map(
        ([role, what]) =>
          html`<label class="choice"
            ><input
              type="checkbox"
              checked=${roles.includes(role)}
              onChange=${() => setRoles(roles.includes(role) ? roles.filter((each) => each !== role) : [...roles, role])}
            />
            ${role} <i>${what}</i></label
          >`,
      )}
    </fieldset>
    <${SpaceChoice} chosen=${applications} onChange=${setApplications} kind="application" />
    <${Buttons} work=${work} label="Make the account" disabled=${roles.length === 0} />
  <//>`;
}
