// Keys are arrays of parts: how people write and read them, and in which order they stand. Pure.

/** @typedef {string[]} Parts */

// Characters that show nothing, look like a space and are none, or change how what follows is shown.
const ODD =
  /[\u0000-\u001f\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc]|\u{e0001}|[\u{e0020}-\u{e007f}]/u;

// Spaces count where nobody sees them: at either end.
const MARKED_IN_CUT = new RegExp(`(${ODD.source}|(?<=^ *) )`, "u");
const MARKED = new RegExp(`(${ODD.source}|(?<=^ *) | (?= *$))`, "u");

/**
 * What a text is shown as: runs of plain characters, and odd ones alone by their code points.
 * @param {string} text
 * @param {number} most characters shown
 * @returns {{ text: string, odd: boolean }[]}
 */
export function shown(text, most) {
  const cut = text.length > most ? text.slice(0, most) : text;
  return cut
    .split(text.length > most ? MARKED_IN_CUT : MARKED)
    .filter((piece) => piece !== "")
    .map((piece) =>
      ODD.test(piece) || piece === " "
        ? {
            text: `U+${/** @type {number} */ (piece.codePointAt(0)).toString(16).toUpperCase().padStart(4, "0")}`,
            odd: true,
          }
        : { text: piece, odd: false },
    );
}

/**
 * The key that somebody has written: parts with slashes between them, or a JSON array.
 * @param {string} text
 * @returns {Parts} Raises an Error that says what is wrong.
 */
export function parseKey(text) {
  const trimmed = text.trim();
  if (trimmed.startsWith("[")) {
    let parsed;
    try {
      parsed = JSON.parse(trimmed);
    } catch {
      throw new Error('This begins like a JSON array, but is none. Write it as ["a", "b"].');
    }
    if (!parsed.every((/** @type {unknown} */ part) => typeof part === "string"))
      throw new Error("Each part of a key must be a text in quotes.");
    return parsed;
  }
  if (text === "") return [];
  const parts = text.split("/");
  if (parts.includes("")) throw new Error('A part is empty. If you mean that, write a JSON array, as ["a", ""].');
  return parts;
}

/** What `parseKey` reads as this key. @param {Parts} parts */
export function keyText(parts) {
  const plain = parts.every((part) => part !== "" && !part.includes("/") && !ODD.test(part) && part === part.trim());
  return plain && !parts[0]?.startsWith("[") ? parts.join("/") : JSON.stringify(parts);
}

/** @param {Parts} one @param {Parts} other */
export const sameKey = (one, other) => one.length === other.length && startsWith(one, other);

/** @param {Parts} key @param {Parts} prefix */
export const startsWith = (key, prefix) => prefix.length <= key.length && prefix.every((part, at) => part === key[at]);

/** Names a key in maps. @param {Parts} parts */
export const idOf = (parts) => JSON.stringify(parts);

/**
 * The order of the store: by bytes of UTF-8, which is by code points. JavaScript compares units of UTF-16.
 * @param {string} one
 * @param {string} other
 */
export function compareParts(one, other) {
  const length = Math.min(one.length, other.length);
  for (let at = 0; at < length; at += 1) {
    const a = one.charCodeAt(at);
    const b = other.charCodeAt(at);
    if (a !== b) {
      const high = (/** @type {number} */ unit) => (unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit);
      return high(a) - high(b);
    }
  }
  return one.length - other.length;
}

/** @param {Parts} one @param {Parts} other */
export function compareKeys(one, other) {
  for (let at = 0; at < Math.min(one.length, other.length); at += 1) {
    const order = compareParts(one[at], other[at]);
    if (order !== 0) return order;
  }
  return one.length - other.length;
}
