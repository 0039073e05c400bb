// Numbers, sizes and times as people read them. Pure.

const number = new Intl.NumberFormat("en-GB");
const decimal = new Intl.NumberFormat("en-GB", { maximumSignificantDigits: 3 });

/** @param {number} value */
export const count = (value) => number.format(value);

/** @param {number} value @param {string} word */
export const counted = (value, word) =>
  `${count(value)} ${value === 1 ? word : word.replace(/([^aeiou])y$/, "$1ie") + "s"}`;

/** @param {number} value */
export const short = (value) => decimal.format(value);

/** @param {number} bytes */
export function size(bytes) {
  if (bytes < 1024) return counted(bytes, "byte");
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = "";
  while (value >= 1024 && units.length) {
    value /= 1024;
    unit = /** @type {string} */ (units.shift());
  }
  return `${decimal.format(value)} ${unit}`;
}

const encoder = new TextEncoder();

/** Bytes of a text in UTF-8. @param {string} text */
export const bytes = (text) => encoder.encode(text).length;

/** An instant in this machine's time zone, to the second. @param {string} instant */
export function moment(instant) {
  const date = new Date(instant);
  const two = (/** @type {number} */ value) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** A length of time in its two largest units. @param {number} milliseconds */
export function duration(milliseconds) {
  /** @type {[string, number][]} */
  const units = [
    ["d", 86_400_000],
    ["h", 3_600_000],
    ["min", 60_000],
    ["s", 1_000],
  ];
  if (milliseconds < 1_000) return `${Math.max(0, Math.round(milliseconds))} ms`;
  const first = units.findIndex(([, length]) => milliseconds >= length);
  let rest = milliseconds;
  return units
    .slice(first, first + 2)
    .map(([name, length]) => {
      const whole = Math.floor(rest / length);
      rest -= whole * length;
      return whole ? `${whole} ${name}` : "";
    })
    .filter(Boolean)
    .join(" ");
}

/** How long ago, in words that need no second look. @param {number} milliseconds */
export function ago(milliseconds) {
  if (milliseconds < 10_000) return "just now";
  return `${duration(milliseconds).split(" ").slice(0, 2).join(" ")} ago`;
}

/** A time of day on this machine. @param {number} milliseconds */
export const time = (milliseconds) => new Date(milliseconds).toTimeString().slice(0, 8);
