// @ts-check
/**
 * Starts `kvasir dev` for tests and moves its clock, faults and contents. Works in vitest, jest and node:test, and
 * depends on nothing but Node.js and the command `kvasir`.
 *
 *     const server = await start();
 *     const space = await server.space("application");
 *     await space.clock.advance("31d");
 *     await space.end();
 *     await server.stop();
 */

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

/**
 * @typedef {object} Credentials
 * @property {string} account_email
 * @property {number} account_id
 * @property {string} key_id
 * @property {string} private_key
 *
 * @typedef {object} Facts The line that `kvasir dev` prints when it serves; what is off is absent.
 * @property {string} http
 * @property {string} [https]
 * @property {string} [nemesis]
 * @property {{url: string, token: string}} control
 * @property {string} organisation
 * @property {string} key
 * @property {Record<string, string>} stores
 * @property {{application_id: number, application_name: string, credentials: Credentials}} voximplant
 * @property {string} [ca]
 * @property {number} pid
 *
 * @typedef {object} SpaceFacts
 * @property {string} id
 * @property {"store" | "application" | "session"} kind
 * @property {string} name
 * @property {number} [application_id]
 * @property {string} [token]
 *
 * @typedef {object} Rule What a fault strikes; a member that is left out strikes any.
 * @property {string} [outcome]
 * @property {"versori" | "voximplant" | "nemesis" | "native"} [api]
 * @property {string} [operation]
 * @property {string | string[]} [key]
 * @property {number} [times]
 * @property {number} [probability]
 * @property {number} [seed]
 * @property {number} [delay_ms]
 * @property {number} [code]
 * @property {boolean} [happens]
 *
 * @typedef {object} Matching
 * @property {string} [api]
 * @property {string} [operation]
 * @property {number} [after]
 *
 * @typedef {object} Recorded
 * @property {number} number
 * @property {number} at
 * @property {string} api
 * @property {string} operation
 * @property {string | null} space
 * @property {string[][]} keys
 * @property {string} outcome
 * @property {number} milliseconds
 * @property {boolean} fault
 */

/** A control refused what it was asked for; the message says why. */
export class ControlFailed extends Error {}

class Controls {
  /** @param {{url: string, token: string}} address */
  constructor({ url, token }) {
    this.url = url;
    this.headers = { Authorization: `Bearer ${token}` };
  }

  /**
   * @param {string} method
   * @param {string} control
   * @param {object} [body]
   * @param {Record<string, string | number | undefined>} [query]
   * @returns {Promise<any>}
   */
  async call(method, control, body, query = {}) {
    const target = new URL(`${this.url}/${control}`);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) target.searchParams.set(name, String(value));
    }
    const answer = await fetch(target, {
      method,
      headers: this.headers,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const found = await answer.json();
    if (answer.status !== 200) throw new ControlFailed(found.message);
    return found;
  }
}

/** The clock of one space, or of the whole server. */
class Clock {
  /** @param {Controls} controls @param {string} [space] */
  constructor(controls, space) {
    this.controls = controls;
    this.space = space;
  }

  /** The time, in Unix milliseconds. */
  async now() {
    return (await this.controls.call("GET", "clock", undefined, { space: this.space })).now_ms;
  }

  /**
   * Move it forward; how many entries have expired by it.
   * @param {string} duration "1500ms", "90s", "15m", "2h" or "31d"
   */
  async advance(duration) {
    return this.set({ advance: duration });
  }

  /**
   * Let it stand; how many entries have expired by it.
   * @param {string} at "now", or an RFC 3339 instant
   */
  async freeze(at = "now") {
    return this.set({ freeze: at });
  }

  /** Let it run on from where it stands. */
  async run() {
    await this.set({ run: true });
  }

  /** @param {object} change @returns {Promise<number>} */
  async set(change) {
    return (await this.controls.call("POST", "clock", change, { space: this.space })).expired;
  }
}

/** The faults of one space, or of the whole server. */
class Faults {
  /** @param {Controls} controls @param {string} [space] */
  constructor(controls, space) {
    this.controls = controls;
    this.space = space;
  }

  /** @param {Rule} rule */
  async add(rule) {
    await this.controls.call("POST", "faults", [rule], { space: this.space });
  }

  /** Take back all of them. */
  async clear() {
    await this.controls.call("DELETE", "faults", undefined, { space: this.space });
  }
}

/** A space for one test. What it moves concerns this space alone. */
class Space {
  /** @param {Controls} controls @param {SpaceFacts} facts */
  constructor(controls, facts) {
    this.controls = controls;
    this.facts = facts;
    this.id = facts.id;
    this.clock = new Clock(controls, facts.id);
    this.faults = new Faults(controls, facts.id);
  }

  /**
   * The requests to it so far, oldest first.
   * @param {Matching} [matching]
   * @returns {Promise<Recorded[]>}
   */
  async requests(matching = {}) {
    return this.controls.call("GET", "requests", undefined, { ...matching, space: this.id });
  }

  /** A token to come back to what there is now. @returns {Promise<string>} */
  async snapshot() {
    return (await this.controls.call("POST", "snapshot", undefined, { space: this.id })).token;
  }

  /** @param {string} token */
  async restore(token) {
    await this.controls.call("POST", `restore/${token}`);
  }

  /** End it, with its clock and its faults. */
  async end() {
    await this.controls.call("DELETE", `spaces/${this.id}`);
  }
}

/** A running `kvasir dev`. What it moves itself is the whole server's. */
class Server {
  /**
   * @param {import("node:child_process").ChildProcess} child
   * @param {Facts} facts
   * @param {string} directory
   */
  constructor(child, facts, directory) {
    this.child = child;
    this.facts = facts;
    this.directory = directory;
    this.controls = new Controls(facts.control);
    this.clock = new Clock(this.controls);
    this.faults = new Faults(this.controls);
  }

  /** The path of a credentials.json for the official clients of Voximplant. */
  get credentials() {
    return join(this.directory, "credentials.json");
  }

  /**
   * A store, application or session of its own. End it when the test is over.
   * @param {SpaceFacts["kind"]} [kind]
   * @param {string} [name]
   */
  async space(kind = "store", name) {
    return new Space(this.controls, await this.controls.call("POST", "spaces", { kind, name }));
  }

  /** @param {Matching & {space?: string}} [matching] @returns {Promise<Recorded[]>} */
  async requests(matching = {}) {
    return this.controls.call("GET", "requests", undefined, { ...matching });
  }

  /** Go back to the seed, on the machine's time, without faults. */
  async reset() {
    await this.controls.call("POST", "reset");
  }

  /** End it. */
  async stop() {
    const ended = new Promise((resolve) => this.child.once("exit", resolve));
    if (this.child.exitCode === null) {
      this.child.stdin?.end();
      await ended;
    }
    await rm(this.directory, { recursive: true, force: true });
  }
}

/**
 * Start a server and wait until it serves. It ends with this process, if `stop` is not called before.
 * @param {object} [settings]
 * @param {string} [settings.command] the program; else the variable KVASIR, else `kvasir` on PATH
 * @param {string[]} [settings.options] of `kvasir dev`
 */
export async function start({ command = process.env.KVASIR ?? "kvasir", options = ["--nemesis", "--https"] } = {}) {
  const child = spawn(command, ["dev", "--until-stdin-closes", ...options], { stdio: ["pipe", "pipe", "inherit"] });
  const line = await new Promise((resolve, reject) => {
    child.once("error", (error) => reject(new Error(`${command} cannot be started (pip install kvasirdb): ${error.message}`)));
    child.once("exit", (status) => reject(new Error(`kvasir dev ended with status ${status} before it served`)));
    createInterface({ input: child.stdout }).once("line", resolve);
  });
  child.removeAllListeners("exit");
  /** @type {Facts} */
  const facts = JSON.parse(line);
  const directory = await mkdtemp(join(tmpdir(), "kvasir-test-"));
  await writeFile(join(directory, "credentials.json"), JSON.stringify(facts.voximplant.credentials), { mode: 0o600 });
  // A test runner ends when nothing is left to do; the server is nothing to wait for.
  child.unref();
  /** @type {any} */ (child.stdin).unref?.();
  /** @type {any} */ (child.stdout).unref?.();
  return new Server(child, facts, directory);
}
