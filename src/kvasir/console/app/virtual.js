// Long lists: only the rows on screen are elements. Owns how far it is scrolled, never the rows.

import { useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { html } from "./html.js";
import { keysCame } from "./ui.js";

// Rows drawn beyond each edge, so that what scrolls in is there already.
const BEYOND = 12;

/**
 * @typedef {{ reveal: (at: number) => void, page: () => number, element: () => HTMLElement | null }} Scroller
 */

/**
 * `row` also gets a number: that of the element which shows the item, for as long as it is on screen. What comes into
 * view takes over the element of what has left it: to fill one anew is cheaper than to make it.
 * @param {{ count: number, rowHeight: number, row: (at: number, style: Record<string, string>, place: number) => any,
 *   item?: (at: number) => unknown, onReach?: (last: number) => void, scroller?: { current: Scroller | null },
 *   attributes?: Record<string, any> }} props
 */
export function VirtualRows({ count, rowHeight, row, item = (at) => at, onReach, scroller, attributes = {} }) {
  const element = useRef(/** @type {HTMLElement | null} */ (null));
  const placed = useRef(/** @type {Map<unknown, number>} */ (new Map()));
  const [{ top, height }, setSeen] = useState({ top: 0, height: 600 });

  useLayoutEffect(() => {
    const box = /** @type {HTMLElement} */ (element.current);
    const look = () => setSeen({ top: box.scrollTop, height: box.clientHeight });
    const observer = new ResizeObserver(look);
    observer.observe(box);
    box.addEventListener("scroll", look, { passive: true });
    look();
    return () => {
      observer.disconnect();
      box.removeEventListener("scroll", look);
    };
  }, []);

  const first = Math.max(0, Math.floor(top / rowHeight) - BEYOND);
  const last = Math.min(count - 1, Math.ceil((top + height) / rowHeight) + BEYOND);
  useEffect(() => onReach?.(last), [last, count, onReach]);
  useEffect(() => void (count > 0 && keysCame()), [count > 0]);

  if (scroller) {
    scroller.current = {
      element: () => element.current,
      page: () => Math.max(1, Math.floor((element.current?.clientHeight ?? rowHeight) / rowHeight) - 1),
      reveal(at) {
        const box = element.current;
        if (!box) return;
        if (at * rowHeight < box.scrollTop) box.scrollTop = at * rowHeight;
        else if ((at + 1) * rowHeight > box.scrollTop + box.clientHeight)
          box.scrollTop = (at + 1) * rowHeight - box.clientHeight;
      },
    };
  }

  const places = placesOf(range(first, last).map(item), placed.current);
  placed.current = places;
  const rows = range(first, last).map((at) =>
    row(at, { top: `${at * rowHeight}px`, height: `${rowHeight}px` }, places.get(item(at)) ?? 0),
  );
  return html`<div ref=${element} class="rows" ...${attributes}>
    <div class="space" role="presentation" style=${{ height: `${count * rowHeight}px` }}>${rows}</div>
  </div>`;
}

/** @param {number} first @param {number} last */
const range = (first, last) => Array.from({ length: Math.max(0, last - first + 1) }, (_, at) => first + at);

/**
 * A place for each item: the one that it had, or the first that is free.
 * @param {unknown[]} items
 * @param {Map<unknown, number>} before
 */
function placesOf(items, before) {
  /** @type {Map<unknown, number>} */
  const places = new Map();
  for (const item of items) {
    const place = before.get(item);
    if (place !== undefined) places.set(item, place);
  }
  const taken = new Set(places.values());
  let free = 0;
  for (const item of items) {
    if (places.has(item)) continue;
    while (taken.has(free)) free += 1;
    places.set(item, free);
    free += 1;
  }
  return places;
}
