// Drift of the live version: what it was asked and answered lately, drawn over the data that it was made with.

import { getJson } from "./api.js";
import { grouped } from "./counts.js";
import { h, svg } from "./dom.js";
import { figure, percent, sentence, when } from "./format.js";

const POLL_MS = 30_000; // counts are written once a minute
const WINDOWS = { "1h": "the last hour", "1d": "the last day", "7d": "the last 7 days" };
const STATES = { drift: "failed", stable: "succeeded" }; // colours of the chip
const WORDS = {
  drift: "Inputs or answers are no longer like the data of this version.",
  suspected: "A distribution is beyond its limit, but not in both halves of the window.",
  stable: "Inputs and answers are like the data of this version.",
  "too few samples": "Each half of the window needs 200 samples.",
};
const [WIDTH, HEIGHT, BASE] = [300, 120, 100];

/** Return a section with a chart for each feature and answer; `refresh()` reads them, `stop()` ends the polling. */
export function driftCard(model) {
  const choice = h("select", { id: "drift-window", on: { change: refresh } }, Object.entries(WINDOWS).map(([value, text]) => h("option", { value }, text)));
  const state = h("p", { class: "drift-state", role: "status" });
  const charts = h("div", { class: "drift" });
  const legend = h("p", { class: "legend" }, h("span", { class: "key of-reference" }, "training and validation data"), h("span", { class: "key of-window" }, "now"), h("span", { class: "key of-drifted" }, "now, beyond the limit"));
  const help = h("p", { class: "help" }, "Each chart shows shares of the samples. PSI, the population stability index, is 0 if both are alike; its limit allows for what chance does to so few or so many samples. Drift says that the requests have changed, not that answers are wrong: ",
    h("a", { href: `#audit/${model.name}` }, "label some answers"), " to know.");
  const element = h("section", { class: "card drift-card", "aria-labelledby": "drift-title" },
    h("div", { class: "with-action" }, h("h2", { id: "drift-title" }, "Drift of the live version"),
      h("p", { class: "choice" }, h("label", { for: choice.id }, "Window"), choice)), state, legend, charts, help);
  const timer = setInterval(() => document.hidden || refresh(), POLL_MS);
  const opened = new Set(); // charts whose shares are shown
  let stopped = false;
  let wanted = 0; // the request that was sent last

  async function refresh() {
    const mine = ++wanted;
    const found = await getJson(`models/${model.name}/drift?window=${choice.value}`, { quiet: true }).catch((error) => ({ error }));
    if (stopped || mine !== wanted) return;
    const lacks = found.error?.detail; // of a lost connection the header tells
    if (found.error && !lacks) return;
    legend.hidden = charts.hidden = help.hidden = Boolean(lacks);
    state.replaceChildren(...(lacks ? [sentence(lacks)] : said(found)));
    charts.replaceChildren(...(lacks ? [] : worstFirst(found.features).map((one) => chart(one, opened))));
  }

  return {
    element,
    refresh,
    stop() {
      stopped = true;
      clearInterval(timer);
    },
  };
}

function said(found) {
  const sure = found.confidence && found.confidence.window !== null
    ? ` Mean confidence ${percent(found.confidence.window)}, on the validation split ${percent(found.confidence.reference)}.` : "";
  return [h("span", { class: "chip", data: { state: STATES[found.state] ?? "" } }, found.state),
    ` ${WORDS[found.state]} ${grouped(found.samples)} samples of version ${found.version} since ${when(found.since)}.${sure}`];
}

function worstFirst(features) {
  const beyond = (one) => one.psi / (one.limit ?? 1);
  return [...features].sort((a, b) => beyond(b) - beyond(a));
}

function chart(one, opened) {
  const name = one.kind === "answer" ? `answers: ${one.name}` : one.name;
  const psi = one.limit === null ? "no samples" : `PSI ${figure(one.psi)}, limit ${figure(one.limit)}`;
  const bins = one.bins.filter((bin, at) => bin.reference > 0 || bin.window > 0 || (bin.low !== null && bin.high !== null) || isLabel(one, at));
  const details = h("details", {}, h("summary", { class: "help" }, "Shares"), shares(name, bins));
  details.open = opened.has(name);
  details.addEventListener("toggle", () => (details.open ? opened.add(name) : opened.delete(name)));
  return h("figure", { class: "hist", data: { drifted: String(one.drifted) } },
    h("figcaption", {}, h("strong", {}, name), one.drifted && h("span", { class: "chip", data: { state: "failed" } }, "drift"), h("span", { class: "help" }, psi)),
    drawing(name, psi, bins), details);
}

/** Whether a bin is that of a label, not that of all others. */
function isLabel(one, at) {
  return one.bins.every((bin) => bin.low === null && bin.high === null) && at < one.bins.length - 1;
}

function drawing(name, psi, bins) {
  const most = Math.max(0.01, ...bins.flatMap((bin) => [bin.reference, bin.window]));
  const step = WIDTH / bins.length;
  const bar = (bin, at, side, inset) => {
    const height = (bin[side] / most) * (BASE - 6);
    return svg("rect", { class: side, x: at * step + inset, y: BASE - height, width: step - 2 * inset, height });
  };
  const moved = bins.reduce((a, b) => (Math.abs(b.window - b.reference) > Math.abs(a.window - a.reference) ? b : a));
  const label = `${name}: ${psi}. Changed most: ${moved.name}, from ${percent(moved.reference)} to ${percent(moved.window)}`;
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
    bins.map((bin, at) => svg("g", {}, svg("title", {}, `${bin.name}: ${percent(bin.reference)}, now ${percent(bin.window)}`),
      bar(bin, at, "reference", 1.5), bar(bin, at, "window", 4))),
    svg("line", { class: "axis", x1: 0, x2: WIDTH, y1: BASE, y2: BASE }), ticks(bins, step));
}

/** Name the labels, or the ends and the middle of the numbers, below the axis. */
function ticks(bins, step) {
  const text = (at, anchor, words) => svg("text", { class: "tick", x: at, y: HEIGHT - 4, "text-anchor": anchor }, words);
  const inner = bins.map((bin, at) => ({ ...bin, at })).filter((bin) => bin.low !== null && bin.high !== null);
  if (!inner.length) {
    return bins.length > 12 ? [] : bins.map((bin, at) => text((at + 0.5) * step, "middle", short(bin.name, 300 / bins.length / 7)));
  }
  const [first, last] = [inner[0], inner.at(-1)];
  return [text(first.at * step, first.at ? "middle" : "start", figure(first.low)), text((last.at + 1) * step, last.at === bins.length - 1 ? "end" : "middle", figure(last.high))];
}

function short(text, most) {
  return text.length <= most ? text : `${text.slice(0, Math.max(1, Math.floor(most) - 1))}…`;
}

function shares(name, bins) {
  return h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": `Shares of ${name}` }, h("table", { class: "counts" },
    h("thead", {}, h("tr", {}, ["Bin", "Data", "Now"].map((title) => h("th", { scope: "col", class: title === "Bin" ? null : "number" }, title)))),
    h("tbody", {}, bins.map((bin) => h("tr", {}, h("th", { scope: "row" }, bin.name),
      [bin.reference, bin.window].map((share) => h("td", { class: "number" }, percent(share))))))));
}
