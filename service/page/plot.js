// Line plots in SVG, drawn at their displayed size.

import { h, svg } from "./dom.js";
import { figure, scientific } from "./format.js";

const MARGIN = { left: 52, right: 14, top: 12, bottom: 34 };
const HEIGHT = 220;
const LOG_FROM = 30; // ratio of largest to smallest value above which a logarithmic axis is used
const MOST_POWERS = 7; // most labels on a logarithmic axis
const MOST_POINTS = 500; // most points of a line: more would not be visible

/**
 * Create a plot; `update(series)` draws [{name, points: [[x, y], ...]}].
 * `log`: use a logarithmic axis if all values are positive and their ratio is above LOG_FROM.
 * `mark`: a point to show; `pick(x)`: called while the user drags over the plot.
 */
export function linePlot({ label, xLabel, height = HEIGHT, log = false, pick = null }) {
  const legend = h("p", { class: "legend" });
  const drawing = h("div", { class: "drawing" });
  const element = h("figure", { class: "plot" }, h("figcaption", {}, label, legend), drawing);
  let shown = { series: [], mark: null };
  let scale = null;

  function draw() {
    const width = drawing.clientWidth;
    if (!width) return;
    scale = scales(shown, width, height, log);
    drawing.replaceChildren(picture(shown, scale, { label, xLabel, width, height }));
  }

  function update(series, mark = null) {
    shown = { series: series.map((one) => ({ ...one, points: thinned(one.points) })), mark };
    const names = series.length > 1 || series.some((one) => one.named);
    legend.replaceChildren(...(names ? series.map((one, at) => one.points.length > 0 && key(one.name, at)) : []).filter(Boolean));
    draw();
  }

  if (pick) {
    drawing.classList.add("pickable");
    const point = (event) => {
      if (event.buttons === 1 && scale) pick(scale.xOf(event.clientX - drawing.getBoundingClientRect().left));
    };
    drawing.addEventListener("pointerdown", point);
    drawing.addEventListener("pointermove", point);
  }
  const observer = new ResizeObserver(draw);
  observer.observe(drawing);
  return { element, update, stop: () => observer.disconnect() };
}

function key(name, at) {
  return h("span", { class: `key line-${at % 4}` }, name);
}

function thinned(points) {
  const finite = points.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
  if (finite.length <= MOST_POINTS) return finite;
  const step = finite.length / MOST_POINTS;
  return Array.from({ length: MOST_POINTS + 1 }, (_, at) => finite[Math.min(finite.length - 1, Math.round(at * step))]);
}

function scales({ series, mark }, width, height, log) {
  const points = [...series.flatMap((one) => one.points), ...(mark ? [mark] : [])];
  const [x0, x1] = range(points.map(([x]) => x), 0);
  const values = points.map(([, y]) => y);
  const isLog = log && values.length > 1 && Math.min(...values) > 0 && Math.max(...values) > LOG_FROM * Math.min(...values);
  const level = isLog ? Math.log10 : Number;
  const [y0, y1] = range(values.map(level), 0.06);
  const across = width - MARGIN.left - MARGIN.right;
  const down = height - MARGIN.top - MARGIN.bottom;
  return {
    empty: points.length === 0,
    x: (value) => MARGIN.left + ((value - x0) / (x1 - x0)) * across,
    y: (value) => MARGIN.top + (1 - (level(value) - y0) / (y1 - y0)) * down,
    xOf: (pixel) => Math.min(x1, Math.max(x0, x0 + ((pixel - MARGIN.left) / across) * (x1 - x0))),
    xTicks: ticks(x0, x1, Math.max(2, Math.floor(across / 90))),
    yTicks: isLog ? powers(y0, y1) : ticks(y0, y1, 4),
  };
}

function range(values, padding) {
  if (!values.length) return [0, 1];
  const low = Math.min(...values);
  const high = Math.max(...values);
  const pad = (high - low) * padding || (high === low ? Math.abs(high) * 0.1 || 1 : 0);
  return [low - pad, high + pad];
}

/** Return round numbers between two: steps of 1, 2 or 5 times a power of ten. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough);
  const first = Math.ceil(low / step);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, at) => Number(((first + at) * step).toPrecision(10)));
}

/** Return powers of ten between two logarithms: with multiples of 2 and 5 if few fit, every nth if too many do. */
function powers(low, high) {
  const steps = high - low > 2.5 ? [1] : [1, 2, 5];
  const stride = Math.ceil((high - low) / MOST_POWERS);
  const all = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, at) => Math.floor(low) + at).filter((power) => power % stride === 0);
  return all.flatMap((power) => steps.map((step) => step * 10 ** power)).filter((value) => Math.log10(value) >= low && Math.log10(value) <= high);
}

function picture({ series, mark }, scale, { label, xLabel, width, height }) {
  const bottom = height - MARGIN.bottom;
  const last = series.map((one) => one.points.at(-1)).map((point) => (point ? figure(point[1]) : "no data"));
  const title = `${label}: ${series.map((one, at) => `${one.name} ends at ${last[at]}`).join(", ")}`;
  if (scale.empty) {
    const text = svg("text", { class: "empty", x: width / 2, y: height / 2 }, "No data yet");
    return svg("svg", { width, height, role: "img", "aria-label": title }, text);
  }
  return svg(
    "svg",
    { width, height, role: "img", "aria-label": title },
    scale.yTicks.map((value) => [
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: scale.y(value), y2: scale.y(value) }),
      svg("text", { class: "tick y", x: MARGIN.left - 8, y: scale.y(value) + 4 }, Math.abs(value) < 1e6 ? figure(value) : scientific(value)),
    ]).flat(),
    scale.xTicks.map((value) => svg("text", { class: "tick x", x: scale.x(value), y: bottom + 16 }, figure(value))),
    svg("line", { class: "axis", x1: MARGIN.left, x2: width - MARGIN.right, y1: bottom, y2: bottom }),
    svg("text", { class: "tick label", x: width - MARGIN.right, y: height - 3 }, xLabel),
    series.map(({ points }, at) => curve(points, scale, at % 4)),
    mark ? svg("circle", { class: "mark", cx: scale.x(mark[0]), cy: scale.y(mark[1]), r: 6 }) : null,
  );
}

function curve(points, scale, at) {
  if (points.length === 1) {
    return svg("circle", { class: `dot line-${at}`, cx: scale.x(points[0][0]), cy: scale.y(points[0][1]), r: 4 });
  }
  const path = points.map(([x, y], i) => `${i ? "L" : "M"}${scale.x(x).toFixed(1)} ${scale.y(y).toFixed(1)}`).join("");
  return svg("path", { class: `curve line-${at}`, d: path });
}
