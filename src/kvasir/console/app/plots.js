// What the server did in the last 15 minutes, as plots; beside each a table of the same for those who do not see it.

import { signal, useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact.js";
import uPlot from "../vendor/uplot.js";
import { getJson, isAbort, said } from "./api.js";
import { count, size, short, time } from "./format.js";
import { html } from "./html.js";
import { Failure, Loading } from "./ui.js";

/**
 * @typedef {{ requests: number, failures: number, p50: number | null, p99: number | null }} Requests
 * @typedef {{ from: string, to: string, dialects: Record<string, Requests>, writes: number, commits: number,
 *   queue_depth: number, connections: number, entries: number, database_bytes: number }} Sample
 * @typedef {{ label: string, values: (number | null)[] }} Line
 * @typedef {{ title: string, unit: string, lines: Line[], show: (value: number) => string,
 *   exact?: (value: number) => string }} Plot show: as axes have it; exact: the same where there is room
 */

// The server takes a sample each so often.
const INTERVAL_MILLISECONDS = 5_000;
const WINDOW_SECONDS = 900;

/** The sample under the pointer, in all plots; null if it is over none. @type {import("@preact/signals").Signal<number | null>} */
const pointed = signal(null);

/** @type {Record<string, string>} how people call the APIs */
const NAMES = {
  native: "/v1",
  versori: "Versori",
  voximplant: "Voximplant",
  nemesis: "NemesisDB",
  operations: "health and metrics",
  reference: "reference",
  console: "console",
};

export function Plots() {
  const [samples, setSamples] = useState(/** @type {Sample[] | null} */ (null));
  const [failure, setFailure] = useState("");
  useEffect(() => {
    const asked = new AbortController();
    const ask = async () => {
      if (document.visibilityState === "hidden") return;
      try {
        const found = await getJson("/stats", { signal: asked.signal });
        setSamples(found.samples);
        setFailure("");
      } catch (error) {
        if (!isAbort(error)) setFailure(said(error));
      }
    };
    void ask();
    const timer = setInterval(ask, INTERVAL_MILLISECONDS);
    return () => {
      clearInterval(timer);
      asked.abort();
    };
  }, []);

  return html`<main class="sheet plots" tabindex="0">
    <h1>The last 15 minutes</h1>
    ${failure && html`<${Failure} text=${failure} />`} ${samples === null && !failure && html`<${Loading} />`}
    ${
      samples?.length === 0 &&
      html`<p class="soft">The server has just started. The first figures come within ten seconds.</p>`
    }
    ${
      samples &&
      samples.length > 0 &&
      html`<div class="grid">
        ${plotsOf(samples).map((plot) => html`<${Figure} key=${plot.title} plot=${plot} times=${samples.map((each) => Date.parse(each.to))} />`)}
      </div>`
    }
  </main>`;
}

/** @param {Sample[]} samples @returns {Plot[]} */
function plotsOf(samples) {
  const used = Object.keys(NAMES).filter((name) => samples.some((each) => (each.dialects[name]?.requests ?? 0) > 0));
  const names = used.length ? used : ["native"];
  /** @param {(of: Requests) => number | null} take @param {string[]} of */
  const byApi = (take, of) =>
    of.map((name) => ({
      label: NAMES[name],
      values: samples.map((each) => (each.dialects[name] ? take(each.dialects[name]) : null)),
    }));
  /** @param {string} label @param {(sample: Sample) => number | null} take */
  const line = (label, take) => ({ label, values: samples.map(take) });
  const asked = names.filter((name) => samples.some((each) => each.dialects[name]?.p99 !== null));
  const milliseconds = (/** @type {number | null} */ seconds) => (seconds === null ? null : seconds * 1000);
  const number = (/** @type {number} */ value) => short(value);
  return [
    { title: "Requests", unit: "per second", lines: byApi((of) => of.requests, names), show: number },
    { title: "Failures", unit: "per second", lines: byApi((of) => of.failures, names), show: number },
    { title: "Response time, median", unit: "ms", lines: byApi((of) => milliseconds(of.p50), asked), show: number },
    {
      title: "Response time, 99th percentile",
      unit: "ms",
      lines: byApi((of) => milliseconds(of.p99), asked),
      show: number,
    },
    {
      title: "Writes and commits",
      unit: "per second",
      lines: [line("writes", (each) => each.writes), line("commits", (each) => each.commits)],
      show: number,
    },
    {
      title: "Writes per commit",
      unit: "",
      lines: [line("writes per commit", (each) => (each.commits ? each.writes / each.commits : null))],
      show: number,
    },
    {
      title: "Queue",
      unit: "writes that wait",
      lines: [line("queue", (each) => each.queue_depth)],
      show: number,
      exact: count,
    },
    {
      title: "Connections",
      unit: "",
      lines: [line("connections", (each) => each.connections)],
      show: number,
      exact: count,
    },
    { title: "Entries", unit: "", lines: [line("entries", (each) => each.entries)], show: number, exact: count },
    { title: "Database", unit: "", lines: [line("size", (each) => each.database_bytes)], show: size },
  ];
}

const COLOURS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6", "--series-7"];
const dark = matchMedia("(prefers-color-scheme: dark)");

/** @param {{ plot: Plot, times: number[] }} props */
function Figure({ plot, times }) {
  const parent = useRef(/** @type {HTMLElement | null} */ (null));
  const drawn = useRef(/** @type {any} */ (null));
  const [scheme, setScheme] = useState(dark.matches);
  const { title, unit, lines, show } = plot;
  const data = [times.map((each) => each / 1000), ...lines.map((each) => each.values)];
  const latest = useRef(data);
  latest.current = data;
  const labels = lines.map((each) => each.label).join("\n");

  useEffect(() => {
    const look = () => setScheme(dark.matches);
    dark.addEventListener("change", look);
    return () => dark.removeEventListener("change", look);
  }, []);
  useLayoutEffect(() => {
    const box = /** @type {HTMLElement} */ (parent.current);
    drawn.current = new uPlot(options(lines, show, box.clientWidth), /** @type {any} */ (latest.current), box);
    const observer = new ResizeObserver(() => drawn.current.setSize({ width: box.clientWidth, height: HEIGHT }));
    observer.observe(box);
    return () => {
      observer.disconnect();
      drawn.current.destroy();
    };
  }, [labels, scheme]);
  useEffect(() => drawn.current?.setData(data), [data]);

  return html`<figure>
    <figcaption><b>${title}</b> <span class="soft">${unit}</span></figcaption>
    <${Legend} plot=${plot} times=${times} />
    <div ref=${parent} class="plot" aria-hidden="true"></div>
    <${Table} plot=${plot} times=${times} />
  </figure>`;
}

/** The names of the lines, with what they were at the pointer, or last. @param {{ plot: Plot, times: number[] }} props */
function Legend({ plot: { lines, show, exact = show }, times }) {
  const at = Math.min(pointed.value ?? Infinity, times.length - 1);
  return html`<div class="legend" aria-hidden="true">
    ${lines.map((each, number) => {
      const value = each.values[at] ?? null;
      return html`<span
        ><span class="swatch" style=${{ background: `var(${COLOURS[number % COLOURS.length]})` }}></span>${
          lines.length > 1 && `${each.label} `
        }<b>${value === null ? "–" : exact(value)}</b></span
      >`;
    })}
    <span class="at">${pointed.value === null ? "" : time(times[at])}</span>
  </div>`;
}

const HEIGHT = 150;

/** @param {Line[]} lines @param {(value: number) => string} show @param {number} width @returns {any} */
function options(lines, show, width) {
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  const axis = {
    stroke: colour("--soft"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui",
  };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    // A line through all plots at once, and none of uPlot's zooming, which would be undone by the next sample.
    cursor: { y: false, points: { size: 5 }, drag: { x: false, y: false }, sync: { key: "plots" } },
    hooks: { setCursor: [(/** @type {any} */ plot) => (pointed.value = plot.cursor.idx ?? null)] },
    scales: {
      x: {
        range: (/** @type {any} */ _plot, /** @type {number} */ _low, /** @type {number} */ high) => [
          high - WINDOW_SECONDS,
          high,
        ],
      },
      y: {
        range: (/** @type {any} */ _plot, /** @type {number} */ low, /** @type {number} */ high) => rangeOf(low, high),
      },
    },
    axes: [
      {
        ...axis,
        size: 28,
        space: 70,
        values: (/** @type {any} */ _plot, /** @type {number[]} */ at) => at.map((each) => time(each * 1000)),
      },
      { ...axis, size: 62, values: (/** @type {any} */ _plot, /** @type {number[]} */ at) => at.map(show) },
    ],
    series: [
      {},
      ...lines.map((each, at) => ({
        label: each.label,
        stroke: colour(COLOURS[at % COLOURS.length]),
        width: 1.5,
        points: { show: false, size: 4, filter: alone },
      })),
    ],
  };
}

/**
 * Samples with none before and none behind them, which no line would show.
 * @param {any} plot
 * @param {number} series
 */
const alone = (plot, series) => {
  const values = /** @type {(number | null)[]} */ (plot.data[series]);
  const isThere = (/** @type {number} */ at) => values[at] !== null && values[at] !== undefined;
  return values.map((_, at) => at).filter((at) => isThere(at) && !isThere(at - 1) && !isThere(at + 1));
};

/** From 0 on: no small change looks large. @param {number | null} low @param {number | null} high */
const rangeOf = (low, high) => [Math.min(0, low ?? 0), (high ?? 0) > 0 ? /** @type {number} */ (high) * 1.08 : 1];

/** A row for each half minute is enough to hear. @param {{ plot: Plot, times: number[] }} props */
function Table({ plot: { title, unit, lines, show, exact = show }, times }) {
  const every = times.map((_, at) => at).filter((at) => (times.length - 1 - at) % 6 === 0);
  return html`<div class="unseen">
    <table>
      <caption>
        ${title} ${unit}
      </caption>
      <thead>
        <tr>
          <th scope="col">Until</th>
          ${lines.map((each) => html`<th scope="col">${each.label}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${every.map(
          (at) =>
            html`<tr>
              <th scope="row">${time(times[at])}</th>
              ${lines.map((each) => html`<td>${each.values[at] === null ? "none" : exact(/** @type {number} */ (each.values[at]))}</td>`)}
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}
