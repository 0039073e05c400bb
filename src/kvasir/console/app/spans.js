// Where the parts of a JSON text are. Numbers, strings and white space stay as they were stored: nothing is parsed
// and printed again. Takes valid JSON only, as the server's answers are.

const SPACE = /[ \t\n\r]*/y;
const SCALAR = /[^\s,\]}]*/y;

/** @param {string} text @param {number} at */
function skipSpace(text, at) {
  SPACE.lastIndex = at;
  SPACE.exec(text);
  return SPACE.lastIndex;
}

/** The index after a string that begins here. @param {string} text @param {number} at */
export function skipString(text, at) {
  for (let end = text.indexOf('"', at + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let escapes = 0;
    while (text[end - 1 - escapes] === "\\") escapes += 1;
    if (escapes % 2 === 0) return end + 1;
  }
  return text.length;
}

/** The index after a value that begins here. @param {string} text @param {number} at */
export function skipValue(text, at) {
  const first = text[at];
  if (first === '"') return skipString(text, at);
  if (first !== "{" && first !== "[") {
    SCALAR.lastIndex = at;
    SCALAR.exec(text);
    return SCALAR.lastIndex;
  }
  const marks = /["[\]{}]/g;
  marks.lastIndex = at;
  let depth = 0;
  for (let found = marks.exec(text); found; found = marks.exec(text)) {
    if (found[0] === '"') marks.lastIndex = skipString(text, found.index);
    else if (found[0] === "{" || found[0] === "[") depth += 1;
    else if ((depth -= 1) === 0) return found.index + 1;
  }
  return text.length;
}

/**
 * The texts of an object's members by name.
 * @param {string} text
 * @returns {Record<string, string>}
 */
export function membersOf(text) {
  /** @type {Record<string, string>} */
  const found = Object.create(null);
  let at = skipSpace(text, skipSpace(text, 0) + 1);
  while (text[at] === '"') {
    const nameEnd = skipString(text, at);
    const start = skipSpace(text, skipSpace(text, nameEnd) + 1);
    const end = skipValue(text, start);
    found[JSON.parse(text.slice(at, nameEnd))] = text.slice(start, end);
    at = skipSpace(text, skipSpace(text, end) + 1);
  }
  return found;
}

/** The texts of an array's items. @param {string} text */
export function itemsOf(text) {
  /** @type {string[]} */
  const found = [];
  let at = skipSpace(text, skipSpace(text, 0) + 1);
  while (at < text.length && text[at] !== "]") {
    const end = skipValue(text, at);
    found.push(text.slice(at, end));
    const comma = skipSpace(text, end);
    if (text[comma] !== ",") break;
    at = skipSpace(text, comma + 1);
  }
  return found;
}

/**
 * The same tokens on lines of their own, indented. Only white space between them is other than it was.
 * @param {string} text
 */
export function indented(text) {
  /** @type {string[]} */
  const out = [];
  let depth = 0;
  const line = () => out.push("\n", "  ".repeat(Math.min(depth, 100)));
  for (let at = skipSpace(text, 0); at < text.length; at = skipSpace(text, at)) {
    const mark = text[at];
    if (mark === "{" || mark === "[") {
      const inside = skipSpace(text, at + 1);
      if (text[inside] === "}" || text[inside] === "]") {
        out.push(mark, text[inside]);
        at = inside + 1;
        continue;
      }
      out.push(mark);
      depth += 1;
      line();
    } else if (mark === "}" || mark === "]") {
      depth -= 1;
      line();
      out.push(mark);
    } else if (mark === ",") {
      out.push(mark);
      line();
    } else if (mark === ":") out.push(": ");
    else {
      const end = skipValue(text, at);
      out.push(text.slice(at, end));
      at = Math.max(end, at + 1);
      continue;
    }
    at += 1;
  }
  return out.join("");
}

const TOKEN =
  /[ \t\n\r]*(?:([{}[\],:])|("(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)/y;

/**
 * Where a text stops to be JSON, which the messages of browsers seldom say. -1 if it is JSON.
 * @param {string} text
 */
export function faultOf(text) {
  /** @type {string[]} the ends of what is open, innermost last */
  const open = [];
  let expected = "value";
  for (let at = skipSpace(text, 0); at < text.length; at = skipSpace(text, at)) {
    TOKEN.lastIndex = at;
    const token = TOKEN.exec(text);
    if (!token) return at;
    const [whole, mark = "", string] = token;
    if (expected === "end") return at;
    if (mark === "{" || mark === "[") {
      if (!expected.startsWith("value")) return at;
      open.push(mark === "{" ? "}" : "]");
      expected = mark === "{" ? "name or }" : "value or ]";
    } else if (mark === "}" || mark === "]") {
      if (!expected.endsWith(` ${mark}`) && !(expected === "comma" && open.at(-1) === mark)) return at;
      open.pop();
      expected = open.length ? "comma" : "end";
    } else if (mark === ",") {
      if (expected !== "comma") return at;
      expected = open.at(-1) === "}" ? "name" : "value";
    } else if (mark === ":") {
      if (expected !== "colon") return at;
      expected = "value";
    } else if (expected.startsWith("name")) {
      if (string === undefined) return at;
      expected = "colon";
    } else {
      if (!expected.startsWith("value")) return at;
      expected = open.length ? "comma" : "end";
    }
    at += whole.length;
  }
  return expected === "end" ? -1 : text.length;
}
