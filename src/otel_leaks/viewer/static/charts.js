// Counts over time by function, with limits, for the selected process.

import uPlot from "./vendor/uPlot.esm.js";
import { byId, h, setText } from "./dom.js";
import { shownProcess } from "./state.js";
import { plural, processName } from "./words.js";

const FUNCTIONS = 6;
const HEIGHT = 190;
const KINDS = ["asyncio_task", "thread"];
const charts = new Map();

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Columns of a chart: times, total, limit, then the functions, the most recent largest first.
export function columns(process, kind) {
  const readings = process.readings.filter(([, kinds]) => kind in kinds);
  const peaks = new Map();
  const latest = new Map();
  readings.forEach(([, kinds], row) => {
    const pairs = kinds[kind][2];
    for (let at = 0; at < pairs.length; at += 2) {
      peaks.set(pairs[at], Math.max(peaks.get(pairs[at]) ?? 0, pairs[at + 1]));
      if (row === readings.length - 1) latest.set(pairs[at], pairs[at + 1]);
    }
  });
  const largest = [...peaks.keys()]
    .sort((one, other) => (latest.get(other) ?? 0) - (latest.get(one) ?? 0) || peaks.get(other) - peaks.get(one) || one - other)
    .slice(0, FUNCTIONS);
  // In a fixed order: a line keeps its color while counts change.
  largest.sort((one, other) => one - other);
  const place = new Map(largest.map((index, at) => [index, at]));
  const lines = largest.map(() => new Array(readings.length).fill(0));
  readings.forEach(([, kinds], row) => {
    const pairs = kinds[kind][2];
    for (let at = 0; at < pairs.length; at += 2) {
      const line = place.get(pairs[at]);
      if (line !== undefined) lines[line][row] = pairs[at + 1];
    }
  });
  return {
    names: largest.map((index) => process.names[index]),
    data: [
      readings.map(([at]) => at),
      readings.map(([, kinds]) => kinds[kind][0]),
      readings.map(([, kinds]) => kinds[kind][1]),
      ...lines,
    ],
  };
}

export function drawCharts() {
  const process = shownProcess();
  if (process === null) return;
  byId("counts").hidden = process.readings.length === 0;
  setText(byId("counts-title"), `Counts of ${processName(process)}`);
  for (const kind of KINDS) drawChart(process, kind);
}

function drawChart(process, kind) {
  const { names, data } = columns(process, kind);
  const known = charts.get(kind) ?? made(kind);
  known.figure.hidden = data[0].length === 0;
  if (known.figure.hidden) return;
  const count = data[1].at(-1);
  const limit = data[2].at(-1);
  const isOver = limit !== null && count > limit;
  setText(known.count, String(count));
  setText(known.noun, plural(kind));
  setText(known.limit, limit === null ? "" : isOver ? `over the limit of ${limit}` : `limit ${limit}`);
  known.limit.className = isOver ? "over" : "soft";
  const peak = data[1].reduce((one, other) => Math.max(one, other), 0);
  known.plot.setAttribute("aria-label", `${plural(kind)} over time: from ${data[1][0]} to ${count}, at most ${peak}${limit === null ? "" : `, limit ${limit}`}`);
  const shape = JSON.stringify([process.id, names]);
  if (known.shape !== shape) {
    known.shape = shape;
    known.uplot?.destroy();
    known.uplot = new uPlot(options(known.plot.clientWidth || 300, names), data, known.plot);
    known.plot.uplot = known.uplot;
    known.legend.replaceChildren(...legend(names));
  } else {
    known.uplot.setData(data);
  }
  [...known.legend.children].forEach((line, at) => {
    const value = data[at + 1].at(-1);
    setText(line.children[1], value === null ? "" : String(value));
    line.hidden = at === 1 && value === null;
  });
}

function made(kind) {
  const count = h("strong", {});
  const noun = h("span", {});
  const limit = h("span", {});
  const plot = h("div", { class: "plot", role: "img", id: `plot-${kind}` });
  const list = h("ul", { class: "legend" });
  const figure = h("figure", {}, h("figcaption", {}, count, noun, limit), plot, list);
  const known = { count, noun, limit, plot, legend: list, figure, shape: "", uplot: null };
  charts.set(kind, known);
  byId("charts").append(figure);
  new ResizeObserver(() => known.uplot?.setSize({ width: plot.clientWidth, height: HEIGHT })).observe(plot);
  return known;
}

function legend(names) {
  const line = (mark, label) => h("li", {}, h("span", { class: `swatch ${mark}`, "aria-hidden": "true" }), h("span", { class: "number" }), h("span", { class: "label", title: label }, label));
  return [line("s7", "total"), line("limit", "limit"), ...names.map((name, at) => line(`s${at}`, name))];
}

function options(width, names) {
  const axis = { stroke: color("--soft"), grid: { stroke: color("--grid"), width: 1 }, ticks: { stroke: color("--grid"), width: 1 } };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    cursor: { drag: { x: true, y: false } },
    scales: { y: { range: (_, low, high) => [0, Math.max(5, (high ?? 0) * 1.08)] } },
    axes: [{ ...axis, values: times }, { ...axis, size: 44, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6, 1e7] }],
    series: [
      {},
      { label: "total", stroke: color("--c7"), width: 1.5, points: { show: false } },
      { label: "limit", stroke: color("--alarm"), width: 1.5, dash: [6, 4], points: { show: false } },
      ...names.map((label, at) => ({ label, stroke: color(`--c${at}`), width: 2, points: { show: false } })),
    ],
  };
}

const times = (_, splits) => {
  const seconds = splits.length > 1 && splits[1] - splits[0] < 60;
  return splits.map((at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...(seconds ? { second: "2-digit" } : {}), hour12: false }));
};

// Colors are read when a chart is created.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const known of charts.values()) known.shape = "";
  drawCharts();
});
