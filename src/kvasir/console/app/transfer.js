// Export to a file and import from one, with progress. What was cut on the way is said to be cut.

import { useEffect, useRef, useState } from "../vendor/preact.js";
import { address, credential, isAbort, Problem, request, said, Unreachable } from "./api.js";
import { Buttons, useWork } from "./changes.js";
import { countBelow } from "./entries.js";
import { Choice } from "./fields.js";
import { counted, size } from "./format.js";
import { html } from "./html.js";
import { closeDialog, Dialog, Failure, KeyText, openDialog, tell } from "./ui.js";

/** @param {string} space @param {string[]} prefix */
export const exportBelow = (space, prefix) =>
  openDialog(() => html`<${ExportDialog} space=${space} prefix=${prefix} />`);

/** @param {string} space */
export const importInto = (space) => openDialog(() => html`<${ImportDialog} space=${space} />`);

const NEWLINE = 10;

/** @param {{ space: string, prefix: string[] }} props */
function ExportDialog({ space, prefix }) {
  const [lines, setLines] = useState(0);
  const [bytes, setBytes] = useState(0);
  const [total, setTotal] = useState(/** @type {number | null} */ (null));
  const [failure, setFailure] = useState("");
  const aborter = useRef(new AbortController());

  useEffect(() => {
    const { signal } = aborter.current;
    countBelow(space, prefix, signal).then(setTotal, () => {});
    collect(space, prefix, signal, (seenLines, seenBytes) => {
      setLines(seenLines);
      setBytes(seenBytes);
    }).then(
      ({ pieces, entries }) => {
        save(
          new Blob(pieces, { type: "application/x-ndjson" }),
          `${["kvasir", ...prefix].join("-").slice(0, 60)}.ndjson`,
        );
        closeDialog();
        tell(`${counted(entries, "entry")} exported.`);
      },
      (error) => !isAbort(error) && setFailure(said(error)),
    );
    return () => aborter.current.abort();
  }, []);

  return html`<${Dialog} title="Export">
    <p>
      ${prefix.length ? html`<${KeyText} parts=${prefix} most=${300} /> and all below it` : "All keys of the space"}
    </p>
    <${Progress} label="Exported" value=${lines} most=${total} text=${`${counted(lines, "entry")}, ${size(bytes)}`} />
    ${failure && html`<${Failure} text=${failure} />`}
    <div class="buttons"><button type="button" onClick=${closeDialog}>${failure ? "Close" : "Cancel"}</button></div>
  <//>`;
}

/**
 * @param {string} space
 * @param {string[]} prefix
 * @param {AbortSignal} signal
 * @param {(lines: number, bytes: number) => void} told
 */
async function collect(space, prefix, signal, told) {
  const query = prefix.length ? { prefix } : {};
  const response = await request("GET", `/spaces/${space}/export`, { query, signal });
  const reader = /** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (response.body).getReader();
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const pieces = [];
  let lines = 0;
  let bytes = 0;
  let tail = "";
  let next = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      pieces.push(value);
      bytes += value.length;
      for (let at = value.indexOf(NEWLINE); at >= 0; at = value.indexOf(NEWLINE, at + 1)) lines += 1;
      tail = (tail + new TextDecoder().decode(value.slice(-400))).slice(-400);
      if (performance.now() > next) {
        told(lines, bytes);
        next = performance.now() + 100;
      }
    }
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Unreachable();
  }
  const end = /\{"end":\s*\{"entries":\s*(\d+)\}\}\n?$/.exec(tail);
  if (!end) throw new Error("The export was cut before its end, so nothing is saved. Try again.");
  return { pieces, entries: Number(end[1]) };
}

/** @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.-]+/g, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

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

  return html`<${Dialog} title="Import" onSubmit=${real.run} busy=${busy} wide>
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
      <button type="button" id="dry-run" disabled=${busy || !file} onClick=${dry.run}>Dry run</button>
    </div>
    <${Buttons} work=${real} label="Import" disabled=${!file || dry.busy} />
  <//>`;
}

/** @param {{ report: Report }} props */
function Outcome({ report }) {
  const { set, kept, refused, refusals, ignored, lines, whole, dry_run: dry } = report;
  return html`<div class="outcome" role="status" id="report">
    <p>
      <b>${dry ? "Dry run, nothing was written: " : ""}</b>
      ${counted(set, "entry")} ${dry ? "would be set" : "set"}, ${kept} kept, ${refused} refused, of
      ${counted(lines, "line")}.
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
      const answer = JSON.parse(http.responseText);
      if (http.status === 200) return resolve(answer);
      const { line, imported } = answer;
      const before = imported ? ` ${counted(imported.set, "entry")} went in before that.` : "";
      const where = line ? ` (line ${line})` : "";
      reject(new Problem({ ...answer, detail: `${answer.detail}${where}.${before}` }));
    };
    http.send(file);
  });
}

/** @param {{ label: string, value: number, most: number | null, text: string }} props */
function Progress({ label, value, most, text }) {
  const bounds = most ? { value: Math.min(value, most), max: most } : {};
  return html`<div class="progress"><progress aria-label=${label} ...${bounds}></progress><span>${text}</span></div>`;
}
