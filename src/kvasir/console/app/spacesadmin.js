// Stores and applications: made, renamed and ended, as far as the key that is signed in may.

import { useState } from "../vendor/preact.js";
import { getJson, request } from "./api.js";
import { Buttons, useWork } from "./changes.js";
import { Choice, TextField } from "./fields.js";
import { counted, moment } from "./format.js";
import { html } from "./html.js";
import { fragment, go } from "./route.js";
import { limited } from "./session.js";
import { Sheet, useLoaded } from "./sheet.js";
import { kinds, loadAllKinds, loadSpaces } from "./spaces.js";
import { closeDialog, Dialog, Icon, openDialog, tell, Text } from "./ui.js";

/** @typedef {import("./spaces.js").Space} Space */

export function SpacesAdmin() {
  const loaded = useLoaded(loadAllKinds);
  const shown = ["store", "application"].flatMap((kind) => kinds.value[kind]?.found ?? []);
  const more = ["store", "application"].filter((kind) => kinds.value[kind]?.next);
  const make = () => openDialog(() => html`<${Make} />`);
  return html`<${Sheet}
    title="Stores and applications"
    loaded=${loaded}
    action=${!limited.value && html`<button class="primary" onClick=${make}><${Icon} name="plus" /> New</button>`}
  >
    <div class="table" tabindex="0" role="region" aria-label="Stores and applications">
      <table>
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">Kind</th>
            <th scope="col">Id</th>
            <th scope="col">Created</th>
            <td></td>
          </tr>
        </thead>
        <tbody>
          ${shown.map((space) => html`<${Row} key=${space.id} of=${space} />`)}
        </tbody>
      </table>
    </div>
    ${more.map((kind) => html`<button onClick=${() => void loadSpaces(kind)}>More ${kind}s</button>`)}
  <//>`;
}

/** @param {{ of: Space }} props */
function Row({ of: space }) {
  const name = space.name || space.id;
  return html`<tr>
    <th scope="row">
      <a href=${fragment({ page: "data", space: space.id, view: "tree", base: [], key: null })}
        ><${Text} text=${name} most=${80}
      /></a>
    </th>
    <td>${space.kind}</td>
    <td><code>${space.id}</code></td>
    <td title=${space.created_at}>${moment(space.created_at)}</td>
    <td>
      <button aria-label=${`Rename ${name}`} onClick=${() => openDialog(() => html`<${Rename} of=${space} />`)}>
        Rename
      </button>
      ${" "}
      <button
        class="danger"
        aria-label=${`End ${name}`}
        onClick=${() => openDialog(() => html`<${End} of=${space} />`)}
      >
        End
      </button>
    </td>
  </tr>`;
}

function Make() {
  const [name, setName] = useState("");
  const [kind, setKind] = useState("store");
  const work = useWork(async () => {
    const response = await request("POST", "/spaces", { json: { name, kind } });
    const space = await response.json();
    closeDialog();
    await loadAllKinds();
    tell(response.status === 201 ? `The ${kind} is made.` : `There is a ${kind} with this name already.`, {
      action: { label: "Open it", run: () => go({ page: "data", space: space.id, view: "tree", base: [], key: null }) },
    });
  });
  return html`<${Dialog} title="New store or application" onSubmit=${work.run} busy=${work.busy}>
    <${TextField} label="Name" value=${name} onInput=${setName} />
    <${Choice}
      label="Kind"
      value=${kind}
      onChange=${setKind}
      choices=${[
        ["store", "store"],
        ["application", "application"],
      ]}
    />
    <${Buttons} work=${work} label="Make it" disabled=${name === ""} />
  <//>`;
}

/** @param {{ of: Space }} props */
function Rename({ of: space }) {
  const [name, setName] = useState(space.name);
  const work = useWork(async () => {
    await request("PATCH", `/spaces/${space.id}`, { json: { name } });
    closeDialog();
    await loadAllKinds();
    tell("Renamed.");
  });
  return html`<${Dialog} title=${`Rename the ${space.kind}`} onSubmit=${work.run} busy=${work.busy}>
    <${TextField}
      label="Name"
      value=${name}
      onInput=${setName}
      hint="Clients that use the old name no longer find it."
    />
    <${Buttons} work=${work} label="Rename" disabled=${name === "" || name === space.name} />
  <//>`;
}

/** @param {{ of: Space }} props */
function End({ of: space }) {
  const loaded = useLoaded(
    async (signal) => /** @type {number} */ ((await getJson(`/spaces/${space.id}`, { signal })).count),
  );
  const [typed, setTyped] = useState("");
  const name = space.name || space.id;
  const work = useWork(async () => {
    await request("DELETE", `/spaces/${space.id}`);
    closeDialog();
    await loadAllKinds();
    tell(`The ${space.kind} has ended.`);
  });
  return html`<${Dialog} title=${`End the ${space.kind}`} onSubmit=${work.run} busy=${work.busy}>
    <p>
      <b><${Text} text=${name} most=${200} /></b> and all that is in it are deleted. This cannot be undone.
    </p>
    <p class="number" role="status">${loaded.found === null ? "Counting …" : counted(loaded.found, "entry")}</p>
    <${TextField} label="Write its name to confirm" value=${typed} onInput=${setTyped} />
    <${Buttons} work=${work} label=${`End the ${space.kind}`} danger disabled=${typed !== name} />
  <//>`;
}
