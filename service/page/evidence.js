// What a trial is judged by: the conditions with their evidence as bars, and the counts of both versions.

import { h } from "./dom.js";
import { grouped } from "./counts.js";
import { figure, percent, sentence, words } from "./format.js";
import { logarithmic, meter } from "./meter.js";

const TONES = { passed: "good", failed: "bad", undecided: "warn" };
const ROOM = 1.25; // the bar of a value that should stay below its bound goes so far beyond it

/** Create the list of a trial's conditions. */
export function conditionList({ evidence }) {
  const judged = evidence.conditions.filter((one) => one.outcome !== "not judged");
  const later = evidence.conditions.filter((one) => one.outcome === "not judged").map((one) => one.condition);
  return [
    h("ul", { class: "conditions", "aria-label": "Conditions" }, judged.map(condition)),
    later.length > 0 && h("p", { class: "help" }, `Not judged in this stage: ${later.join(", ")}.`),
    judged.length > 0 && h("p", { class: "help" }, explained(judged)),
  ];
}

/** Explain the evidence, whose limits are those of the conditions. */
function explained(judged) {
  const limit = judged.find((one) => one.e_value !== null)?.limit;
  const rule = "A condition that has failed rolls the trial back.";
  if (!limit) return rule;
  return `Evidence against a condition starts at 1 and grows with each finding against it; at the limit the condition has failed. At most one in ${figure(limit)} candidates that meet it gets so far by chance, however often one looks. ${rule}`;
}

function condition(one) {
  return h("li", {},
    h("p", { class: "condition-name" }, h("strong", {}, one.condition), h("span", { class: "chip", data: { tone: TONES[one.outcome] } }, one.outcome)),
    one.e_value === null ? null : evidenceBar(one), valueBar(one), h("p", { class: "help" }, beyondBars(one)));
}

/** Return what the detail says besides the value and bound that a bar shows: its part after the semicolon. */
function beyondBars({ detail, value, bound }) {
  return value === null || bound === null ? sentence(detail) : sentence(detail.slice(detail.lastIndexOf("; ") + 1).trim());
}

function evidenceBar({ condition: name, e_value: value, limit, outcome }) {
  const part = logarithmic(value, limit);
  const tone = outcome === "failed" ? "bad" : part > 0.5 ? "warn" : "good";
  return meter({ label: "Evidence against it", about: name, part, tone, mark: 1, text: `${figure(Number(value.toPrecision(3)))}, limit ${figure(limit)}` });
}

function valueBar({ condition: name, value, bound }) {
  if (value === null || bound === null) return null;
  if (name === "agreement") {
    return meter({ label: "Answered alike", about: name, part: value, mark: bound, tone: value < bound ? "bad" : "good", text: `${percent(value)}, at least ${percent(bound)}` });
  }
  return meter({ label: "p95", about: name, part: value / bound / ROOM, mark: 1 / ROOM, tone: value > bound ? "bad" : "good",
    text: `${milliseconds(value)}, at most ${figure(bound)} ms` });
}

const COLUMNS = [
  ["Requests", (arm) => grouped(arm.requests)],
  ["Samples", (arm) => grouped(arm.samples)],
  ["Errors", (arm) => grouped(arm.errors)],
  ["Keys with an error", (arm) => grouped(arm.keys)],
  ["p50", (arm) => milliseconds(arm.latency_ms?.p50)],
  ["p95", (arm) => milliseconds(arm.latency_ms?.p95)],
  ["p99", (arm) => milliseconds(arm.latency_ms?.p99)],
  ["Left out", (arm) => grouped(arm.dropped)],
];

const KEYS = "A key stands for a caller: the value of the trial's header, or each request alone without one. p95: 95 % of the answers took at most so long.";

/** Create a table of what both versions were counted with in the current stage, or the last one. */
export function countTable(trial) {
  const stage = trial.evidence.stages.at(-1);
  const arms = Object.entries(stage.arms);
  const columns = COLUMNS.filter(([name]) => name !== "Left out" || arms.some(([, arm]) => arm.dropped));
  const label = `Counts of stage ${stage.stage + 1}`;
  const table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, h("table", { class: "stacked arms" },
    h("caption", { class: "visually-hidden" }, label),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Version"), columns.map(([name]) => h("th", { scope: "col", class: "number" }, name)))),
    h("tbody", {}, arms.map(([arm, counts]) => h("tr", {},
      h("th", { scope: "row" }, `${arm === "live" ? trial.live : trial.version}`, h("span", { class: "help" }, ` ${words(arm)}`)),
      columns.map(([name, cell]) => h("td", { class: "number", data: { label: name } }, cell(counts))))))));
  return [table, h("p", { class: "help" }, KEYS)];
}

function milliseconds(value) {
  return value === undefined ? "–" : `${figure(Number(value.toPrecision(3)))} ms`;
}
