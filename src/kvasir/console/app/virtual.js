// Long lists: only the rows on screen are elements. Owns how far it is scrolled, never the rows.

import { useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import { html } from "./html.js";

// Rows drawn beyond each edge, so that what scrolls in is there already.
const BEYOND = 12;

/**
 * @typedef {{ reveal: (at: number) => void, page: () => number, element: () => HTMLElement | null }} Scroller
 */

/**
 * `row` also gets a number that no other row on screen has, and that one which comes into view takes over from one that
 * has left it: a key for rows that are cheaper to fill anew than to make.
 * @param {{ count: number, rowHeight: number, row: (at: number, style: Record<string, string>, place: number) => any,
 *   onReach?: (last: number) => void, scroller?: { current: Scroller | null }, attributes?: Record<string, any> }} props
 */
export function VirtualRows({ count, rowHeight, row, onReach, scroller, attributes = {} }) {
  const element = useRef(/** @type {HTMLElement | null} */ (null));
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

  const rows = [];
  const places = Math.ceil(height / rowHeight) + 2 * BEYOND + 2;
  for (let at = first; at <= last; at += 1)
    rows.push(row(at, { top: `${at * rowHeight}px`, height: `${rowHeight}px` }, at % places));
  return html`<div ref=${element} class="rows" ...${attributes}>
    <div class="space" role="presentation" style=${{ height: `${count * rowHeight}px` }}>${rows}</div>
  </div>`;
}
