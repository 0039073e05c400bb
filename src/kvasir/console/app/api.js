// The one way to the server: requests to /v1 with the access key in a header, and what their failures are.
// Owns the key, which is nowhere else in the page, and no state besides.

import { serverClock } from "./clock.js";

/**
 * @typedef {{ name: string, organisation: string, role: string, spaces: string[] | null, prefix: string[] | null,
 *   expires_at: string | null }} Caller
 * @typedef {{ version: string, engine: string, durability: string, caller: Caller }} About
 * @typedef {Record<string, string | number | boolean | string[] | null | undefined>} Query
 * @typedef {{ query?: Query, body?: BodyInit, json?: unknown, headers?: Record<string, string>, signal?: AbortSignal,
 *   anonymous?: boolean }} Options anonymous: without the key, so that a 401 says nothing of it
 */

let accessKey = "";

/** What is done once the server no longer takes the key. @type {() => void} */
let whenRefused = () => {};

/** @param {string} key @param {() => void} refused */
export function useKey(key, refused) {
  accessKey = key;
  whenRefused = refused;
}

/** The server answered that it did not do what it was asked to. */
export class Problem extends Error {
  /** @param {Record<string, any>} document */
  constructor(document) {
    super(document.detail ?? document.title ?? "the server failed");
    /** @type {number} */
    this.status = document.status;
    /** @type {string} */
    this.code = document.code;
    this.document = document;
  }
}

/** No answer came: what was asked for may have been done or not. */
export class Unreachable extends Error {
  constructor() {
    super("The server cannot be reached.");
  }
}

/** @param {unknown} error */
export const isAbort = (error) => error instanceof DOMException && error.name === "AbortError";

/** @param {unknown} error */
export const said = (error) => {
  if (error instanceof Problem) return sentence(error.message);
  if (error instanceof Error) return error.message;
  return String(error);
};

/** @param {string} text */
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

/**
 * @param {string} path below /v1
 * @param {Query} [query] arrays are keys and prefixes
 */
export function address(path, query = {}) {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    value === null || value === undefined ? [] : [[name, Array.isArray(value) ? JSON.stringify(value) : String(value)]],
  );
  const text = new URLSearchParams(pairs).toString();
  return `/v1${path}${text && "?"}${text}`;
}

/** The server no longer takes the key: whoever is signed in is no longer. */
export const refused = () => whenRefused();

/** The headers of every request. */
export const credential = () => ({ Authorization: `Bearer ${accessKey}` });

/**
 * A request whose answer is a success. Raises `Problem` or `Unreachable`.
 * @param {string} method
 * @param {string} path
 * @param {Options} [options]
 */
export async function request(method, path, { query, body, json, headers, signal, anonymous = false } = {}) {
  const sent = Date.now();
  const asker = accessKey;
  /** @type {Response} */
  let response;
  try {
    response = await fetch(address(path, query), {
      method,
      body: json === undefined ? body : JSON.stringify(json),
      headers: {
        ...(anonymous ? {} : credential()),
        ...(json === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      referrerPolicy: "no-referrer",
    });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Unreachable();
  }
  serverClock.observe(response.headers.get("Date"), sent, Date.now());
  // Whoever asked has left meanwhile: the answer is for nobody else, nor is a refusal.
  if (!anonymous && asker !== accessKey) throw new DOMException("Signed out", "AbortError");
  if (response.ok) return response;
  if (response.status === 401 && !anonymous) refused();
  throw await problem(response);
}

/** @param {Response} response */
async function problem(response) {
  const document = await response.json().catch(() => ({ title: `The server answered ${response.status}.` }));
  return new Problem({ status: response.status, ...document });
}

/** @param {string} path @param {Options} [options] @returns {Promise<any>} */
export const getJson = async (path, options) => (await read(await request("GET", path, options))).json();

/** @param {string} path @param {Options} [options] @returns {Promise<string>} */
export async function getText(path, options) {
  const response = await request("GET", path, options);
  // Not response.text(), which would drop a byte order mark.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return decoder.decode(await (await read(response)).arrayBuffer());
}

/** Bodies that are cut are no answers either. @param {Response} response */
async function read(response) {
  try {
    return new Response(await response.blob());
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Unreachable();
  }
}
