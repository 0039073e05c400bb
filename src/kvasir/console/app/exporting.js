// Export to a file, with progress. What was cut on the way is said to be cut, and is no file.

import { useEffect, useRef, useState } from "../vendor/preact.js";
import { isAbort, request, said, Unreachable } from "./api.js";
import { countBelow } from "./entries.js";
import { counted, size } from "./format.js";
import { html } from "./html.js";
import { Progress, save } from "./transfer.js";
import { closeDialog, Dialog, Failure, KeyText, openDialog, tell } from "./ui.js";

/**
 * To a file that is chosen first and written as the lines come, or, in browsers that cannot, to one that is made of all.
 * @param {string} space
 * @param {string[]} prefix
 */
export async function exportBelow(space, prefix) {
  const name = `${["kvasir", ...prefix]
    .join("-")
    .slice(0, 60)
    .replace(/[^\w.-]+/g, "_")}.ndjson`;
  try {
    const made = await target(name);
    openDialog(() => html`<${ExportDialog} space=${space} prefix=${prefix} target=${made} />`);
  } catch (error) {
    if (!isAbort(error)) tell(said(error), { bad: true });
  }
}

const NEWLINE = 10;

/**
 * Where an export goes; after `end` it is a whole file, after `drop` there is none.
 * @typedef {{ write: (piece: Uint8Array<ArrayBuffer>) => Promise<void>, end: () => Promise<void>,
 *   drop: () => Promise<void> }} Target
 */

/** @param {string} name @returns {Promise<Target>} Raises an AbortError if no file is chosen. */
async function target(name) {
  const choose = /** @type {any} */ (globalThis).showSaveFilePicker;
  return choose ? chosenFile(await choose({ suggestedName: name })) : downloaded(name);
}

/** @param {FileSystemFileHandle} file @returns {Promise<Target>} */
async function chosenFile(file) {
  // Takes the place of the file when it is closed, not before.
  const stream = await file.createWritable();
  return {
    write: (piece) => stream.write(piece),
    end: () => stream.close(),
    drop: () => stream.abort().catch(() => {}),
  };
}

/** What a browser keeps of an export for itself, some of it on its disk. */
const MOST_BYTES = 2 ** 30;

/** @param {string} name @returns {Target} */
function downloaded(name) {
  let kept = new Blob();
  /** @type {Uint8Array<ArrayBuffer>[]} */
  let pieces = [];
  let bytes = 0;
  return {
    async write(piece) {
      pieces.push(piece);
      bytes += piece.length;
      if (bytes > MOST_BYTES)
        throw new Error(
          `This browser cannot write a file of more than ${size(MOST_BYTES)} piece by piece, so nothing is saved. ` +
            "Export prefixes one by one, use Chrome or Edge, or `kvasir kv export`.",
        );
      // The page's own memory holds a few pieces; the blob is the browser's.
      if (pieces.length >= 64) [kept, pieces] = [new Blob([kept, ...pieces]), []];
    },
    async end() {
      save(new Blob([kept, ...pieces], { type: "application/x-ndjson" }), name);
    },
    drop: async () => {},
  };
}

/** @param {{ space: string, prefix: string[], target: Target }} props */
function ExportDialog({ space, prefix, target }) {
  const [lines, setLines] = useState(0);
  const [bytes, setBytes] = useState(0);
  const [total, setTotal] = useState(/** @type {number | null} */ (null));
  const [failure, setFailure] = useState("");
  const aborter = useRef(new AbortController());

  useEffect(() => {
    const { signal } = aborter.current;
    countBelow(space, prefix, signal).then(setTotal, () => {});
    collect(space, prefix, target, signal, (seenLines, seenBytes) => {
      setLines(seenLines);
      setBytes(seenBytes);
    }).then(
      (entries) => {
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
 * @param {Target} target
 * @param {AbortSignal} signal
 * @param {(lines: number, bytes: number) => void} told
 * @returns {Promise<number>} how many entries went to the target
 */
async function collect(space, prefix, target, signal, told) {
  try {
    const query = prefix.length ? { prefix } : {};
    const response = await request("GET", `/spaces/${space}/export`, { query, signal });
    const entries = await pass(/** @type {ReadableStream<Uint8Array<ArrayBuffer>>} */ (response.body), target, told);
    await target.end();
    return entries;
  } catch (error) {
    await target.drop();
    throw error;
  }
}

/**
 * @param {ReadableStream<Uint8Array<ArrayBuffer>>} body
 * @param {Target} target
 * @param {(lines: number, bytes: number) => void} told
 */
async function pass(body, target, told) {
  const reader = body.getReader();
  let lines = 0;
  let bytes = 0;
  let tail = "";
  let next = 0;
  for (;;) {
    const { done, value } = await reader.read().catch((/** @type {unknown} */ error) => {
      throw isAbort(error) ? error : new Unreachable();
    });
    if (done) break;
    // Waits for a slow disk, and the server then waits for this.
    await target.write(value);
    bytes += value.length;
    for (let at = value.indexOf(NEWLINE); at >= 0; at = value.indexOf(NEWLINE, at + 1)) lines += 1;
    tail = (tail + new TextDecoder().decode(value.slice(-400))).slice(-400);
    if (performance.now() > next) {
      told(lines, bytes);
      next = performance.now() + 100;
    }
  }
  const end = /\{"end":\s*\{"entries":\s*(\d+)\}\}\n?$/.exec(tail);
  if (!end) throw new Error("The export was cut before its end, so nothing is saved. Try again.");
  return Number(end[1]);
}
