// Import from a file, with progress, and what became of its lines.

import { useEffect, useRef, useState } from "../vendor/preact.js";
import { address, credential, Problem, refused } from "./api.js";
import { Buttons, useWork } from "./changes.js";
import { Choice } from "./fields.js";
import { counted, size } from "./format.js";
import { html } from "./html.js";
import { Progress } from "./transfer.js";
import { Dialog, Failure, openDialog } from "./ui.js";

/** @param {string} space */
export const importInto = (space) => openDialog(() => html`<${ImportDialog} space=${space} />`);

/**
 * @typedef {{ set: number, kept: number, refused: number, refusals: { line: number, reason: string }[],
 *   ignored: string[], lines: number, whole: boolean | null, dry_run: boolean }} Report
 */

/** @param {{ space: string }} props */
function ImportDialog({ space }) {
  const [file, setFile] = useState(/** @type {File | null} */ (null));
  const [mode, setMode] = useState("replace");
  const [sent, setSent] = useState(/** @type {number | null} */ (null));
  const [report, setReport] = useState(/** @type {Report | null} */ (null));
  const running = useRef(/** @type {XMLHttpRequest | null} */ (null));
  useEffect(() => () => running.current?.abort(), []);

  /** @param {boolean} dry */
  const start = async (dry) => {
    if (!file) throw new Error("Choose a file first.");
    setReport(null);
    setSent(0);
    try {
      setReport(await send(space, file, mode, dry, running, setSent));
    } finally {
      setSent(null);
    }
  };
  const dry = useWork(() => start(true));
  const real = useWork(() => start(false));
  const busy = dry.busy || real.busy;
  /** What the other one told is over then. @param {typeof dry} one @param {typeof dry} other */
  const run = (one, other) => {
    other.forget();
    void one.run();
  };

  return html`<${Dialog} title="Import" onSubmit=${() => run(real, dry)} busy=${busy} wide>
    <div class="field">
      <label for="file">A file of lines, as an export gives it</label>
      <input
        id="file"
        type="file"
        accept=".ndjson,.jsonl,.json,.txt"
        disabled=${busy}
        onChange=${(/** @type {any} */ event) => setFile(event.currentTarget.files[0] ?? null)}
      />
    </div>
    <${Choice}
      label="A key that exists"
      value=${mode}
      onChange=${setMode}
      choices=${[
        ["replace", "is replaced"],
        ["keep", "stays as it is"],
        ["fail", "stops the import there"],
      ]}
    />
    ${sent !== null && html`<${Progress} label="Sent" value=${sent} most=${file?.size ?? null} text=${`${size(sent)} of ${size(file?.size ?? 0)}`} />`}
    ${report && html`<${Outcome} report=${report} />`} ${dry.failure && html`<${Failure} text=${dry.failure} />`}
    <div class="buttons">
      <button type="button" id="dry-run" disabled=${busy || !file} onClick=${() => run(dry, real)}>Dry run</button>
    </div>
    <${Buttons} work=${real} label="Import" disabled=${!file || dry.busy} />
  <//>`;
}

/** @param {{ report: Report }} props */
function Outcome({ report }) {
  const { set, kept, refused, refusals, ignored, lines, whole, dry_run: dry } = report;
  const told = `${counted(set, "entry")} ${dry ? "would be set" : "set"}, ${kept} kept, ${refused} refused, of ${counted(lines, "line")}.`;
  return html`<div class="outcome" role="status" id="report">
    <p>
      ${dry && html`<b>Dry run, nothing was written: </b>`} ${told}
      ${whole === false && html` <b class="bad">The file is not whole: its last line tells another number of entries.</b>`}
    </p>
    ${ignored.length > 0 && html`<p class="soft">Made anew, not taken over: ${ignored.join(", ")}.</p>`}
    ${
      refusals.length > 0 &&
      html`<ol class="refusals">
        ${refusals.map(({ line, reason }) => html`<li><b>Line ${line}</b> ${reason}</li>`)}
      </ol>`
    }
  </div>`;
}

/** What the server said; a proxy before it may say anything. @param {XMLHttpRequest} http */
function answerOf({ status, responseText }) {
  const unknown = { status, detail: `The server answered ${status}.` };
  try {
    const answer = JSON.parse(responseText);
    return answer && typeof answer === "object" ? { ...unknown, ...answer } : unknown;
  } catch {
    return unknown;
  }
}

/**
 * XMLHttpRequest, since fetch does not tell how much of a body has gone.
 * @param {string} space
 * @param {File} file
 * @param {string} mode
 * @param {boolean} dry
 * @param {{ current: XMLHttpRequest | null }} running
 * @param {(sent: number) => void} told
 * @returns {Promise<Report>}
 */
function send(space, file, mode, dry, running, told) {
  return new Promise((resolve, reject) => {
    const http = new XMLHttpRequest();
    running.current = http;
    http.open("POST", address(`/spaces/${space}/import`, { mode, dry_run: dry || null }));
    http.setRequestHeader("Authorization", credential().Authorization);
    http.setRequestHeader("Content-Type", "application/x-ndjson");
    http.upload.onprogress = (event) => told(event.loaded);
    http.onerror = () => reject(new Error("The connection broke. What went in before that stays."));
    http.onabort = () => reject(new Error("Stopped. What went in before that stays."));
    http.onload = () => {
      const answer = answerOf(http);
      if (http.status === 200 && "set" in answer) return resolve(answer);
      if (http.status === 401) refused();
      const { line, imported } = answer;
      const before = imported ? ` ${counted(imported.set, "entry")} went in before that.` : "";
      const where = line ? ` (line ${line})` : "";
      reject(new Problem({ ...answer, detail: `${String(answer.detail).replace(/\.$/, "")}${where}.${before}` }));
    };
    http.send(file);
  });
}
