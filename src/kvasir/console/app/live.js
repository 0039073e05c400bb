// Changes as they are committed: one `watch` of a space, read as a stream, connected again by its last event.
// fetch and no EventSource, which cannot send the access key in a header.

import { signal } from "../vendor/preact.js";
import { address, credential, isAbort, refused } from "./api.js";

/**
 * @typedef {{ name: string, data: any, text: string }} Change name: set, delete, delete_prefix, expiry, resync or error
 * @typedef {"connecting" | "live" | "paused" | "lost" | "ended" | "absent"} State the last two are for good: there is no
 *   such space any more, or there never was for this access key
 */

/** The server itself, and no proxy before it, says that there is no such space. */
class Gone extends Error {}

// Work on changes at a time, before the page may draw and react.
const SLICE_MILLISECONDS = 12;

export class Live {
  /** @type {import("@preact/signals").Signal<State>} */
  state = signal(/** @type {State} */ ("connecting"));
  #space;
  #prefix;
  #tell;
  #ended;
  #last = "";
  /** @type {AbortController | null} */
  #open = null;

  /**
   * @param {string} space
   * @param {string[]} prefix
   * @param {(changes: Change[]) => void} tell
   * @param {() => void} ended once the space is no longer there
   */
  constructor(space, prefix, tell, ended) {
    this.#space = space;
    this.#prefix = prefix;
    this.#tell = tell;
    this.#ended = ended;
    this.start();
  }

  isOver() {
    return this.state.value === "ended" || this.state.value === "absent";
  }

  start() {
    if (this.#open || this.isOver()) return;
    this.#open = new AbortController();
    void this.#run(this.#open.signal);
  }

  pause() {
    if (this.isOver()) return;
    this.stop();
    this.state.value = "paused";
  }

  stop() {
    this.#open?.abort();
    this.#open = null;
  }

  /** @param {AbortSignal} aborted */
  async #run(aborted) {
    for (let failures = 0; !aborted.aborted; failures += 1) {
      this.state.value = failures ? "lost" : "connecting";
      try {
        await this.#follow(aborted, () => {
          failures = 0;
          this.state.value = "live";
        });
      } catch (error) {
        if (isAbort(error)) return;
        if (error instanceof Gone) return this.#over();
      }
      if (aborted.aborted) return;
      const pause = Math.min(10_000, 250 * 2 ** failures) * (0.75 + Math.random() / 2);
      await new Promise((done) => setTimeout(done, pause));
    }
  }

  #over() {
    this.state.value = this.#last ? "ended" : "absent";
    this.#ended();
  }

  /** One connection, until it ends. @param {AbortSignal} signal @param {() => void} ready */
  async #follow(signal, ready) {
    const prefix = this.#prefix.length ? { prefix: this.#prefix } : {};
    const response = await fetch(address(`/spaces/${this.#space}/watch`, prefix), {
      headers: { ...credential(), ...(this.#last ? { "Last-Event-ID": this.#last } : {}) },
      signal,
      cache: "no-store",
      credentials: "omit",
    });
    if (response.status === 401) refused();
    if (/^40[34]$/.test(`${response.status}`) && isProblem(response)) throw new Gone();
    if (!response.ok || !response.body) throw new Error(`watch: ${response.status}`);
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const pieces = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = /** @type {string} */ (pieces.pop());
      await this.#take(pieces, ready);
      if (signal.aborted) return;
    }
  }

  /** @param {string[]} pieces @param {() => void} ready */
  async #take(pieces, ready) {
    /** @type {Change[]} */
    let changes = [];
    let began = performance.now();
    for (const piece of pieces) {
      const change = this.#read(piece);
      if (!change) continue;
      if (change.name === "ready" || change.name === "resync") ready();
      if (change.name !== "ready" && change.name !== "bye") changes.push(change);
      if (performance.now() - began > SLICE_MILLISECONDS) {
        this.#tell(changes);
        changes = [];
        await new Promise((done) => setTimeout(done));
        began = performance.now();
      }
    }
    if (changes.length) this.#tell(changes);
  }

  /** @param {string} piece */
  #read(piece) {
    let name = "";
    let text = "";
    for (const line of piece.split("\n")) {
      if (line.startsWith("event: ")) name = line.slice(7);
      else if (line.startsWith("data: ")) text = line.slice(6);
      else if (line.startsWith("id: ")) this.#last = line.slice(4);
    }
    return name ? { name, data: JSON.parse(text), text } : null;
  }
}

/** @param {Response} response */
const isProblem = (response) => response.headers.get("Content-Type")?.startsWith("application/problem+json");
