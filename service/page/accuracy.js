// How right a version was on the requests of a window: the share that is labelled, the accuracy with its interval, and both over time.

import { getJson, throttled } from "./api.js";
import { grouped } from "./counts.js";
import { h } from "./dom.js";
import { figure, percent } from "./format.js";
import { meter } from "./meter.js";
import { linePlot } from "./plot.js";

const [HOUR_MS, DAY_MS] = [3_600_000, 86_400_000];
const WINDOWS = { "1d": ["the last day", HOUR_MS, "hours from now"], "7d": ["the last 7 days", DAY_MS, "days from now"],
  "30d": ["the last 30 days", DAY_MS, "days from now"], "365d": ["the last year", DAY_MS, "days from now"] };
const FIRST = "30d";
const PAUSE_MS = 300; // between two requests while labels are told

/** Create a card; `about(version)` chooses the version, `refresh()` counts again, `stop()` ends it. */
export function accuracyCard(model) {
  const choice = h("select", { id: "accuracy-window", on: { change: () => refresh() } }, Object.entries(WINDOWS).map(([value, [text]]) => h("option", { value, selected: value === FIRST }, text)));
  const title = h("h2", { id: "accuracy-title" }, "Accuracy so far");
  const body = h("div", { class: "so-far" });
  const element = h("section", { class: "card accuracy", "aria-labelledby": title.id },
    h("div", { class: "with-action" }, title, h("p", { class: "choice" }, h("label", { for: choice.id }, "Requests of"), choice)), body);
  let version = null;
  let plot = null;
  let stopped = false;

  const refresh = throttled(async () => {
    const [asked, window] = [version, choice.value];
    if (asked === null) return;
    const path = `models/${encodeURIComponent(model.name)}/versions/${asked}/accuracy?window=${window}`;
    const found = await getJson(path, { quiet: true }).catch((error) => ({ error }));
    if (stopped || asked !== version || window !== choice.value) return;
    plot?.stop();
    plot = null;
    body.replaceChildren(...(found.error ? [h("p", {}, found.error.message)] : [labelledMeter(found), ...estimate(found), ...remarks(found)]));
    if (!found.error) draw(found, window);
  }, PAUSE_MS);

  function draw(found, window) {
    const [, unit, xLabel] = WINDOWS[window];
    const lines = linesOf(found, unit);
    if (lines[0].points.length < 2) return;
    plot = linePlot({ label: found.accuracy ? "Share of right answers" : "Mean absolute error", xLabel, height: 170 });
    body.append(plot.element);
    plot.update(lines);
  }

  return {
    element,
    refresh,
    about(chosen) {
      version = chosen;
      title.textContent = `Accuracy of version ${chosen} so far`;
      refresh();
    },
    stop() {
      stopped = true;
      plot?.stop();
    },
  };
}

function labelledMeter({ labelled, captured, share_labelled: share }) {
  const text = captured ? `${grouped(labelled)} of ${grouped(captured)} captured answers (${percent(share)})` : "no captured answers";
  return meter({ label: "Labelled", part: share ?? 0, text });
}

/** The accuracy with its interval, on a scale from none to all; of values the mean absolute error. */
function estimate({ accuracy, error, labelled }) {
  if (accuracy) {
    const text = `between ${percent(accuracy.low)} and ${percent(accuracy.high)} with 95 % confidence`;
    return [h("p", { class: "right-share" }, h("strong", {}, percent(accuracy.value)), ` right, ${text}`), interval(accuracy, `${percent(accuracy.value)}, ${text}`)];
  }
  if (error) {
    return [h("p", { class: "right-share" }, h("strong", {}, figure(error.value)), ` mean absolute error, between ${figure(error.low)} and ${figure(error.high)} with 95 % confidence`)];
  }
  return [h("p", {}, labelled ? "Values need two labels for an estimate." : "No estimate yet: it begins with the first label.")];
}

function interval({ value, low, high }, text) {
  const range = h("span", { class: "range" });
  Object.assign(range.style, { left: `${low * 100}%`, width: `${(high - low) * 100}%` });
  const mark = h("span", { class: "limit" });
  mark.style.left = `${value * 100}%`;
  return h("div", { class: "interval", role: "img", "aria-label": text }, range, mark);
}

/** What is not counted, and what the answers' own probabilities promise. */
function remarks({ by_kind: kinds, corrections, expected, labelled }) {
  const counted = labelled ? `Counted: ${kinds.audit} random audits and ${kinds.outcome} outcomes. ` : "";
  const reported = corrections.count ? `Not counted: ${corrections.count} corrections, since callers report wrong answers more often than right ones. ` : "";
  const promised = expected ? `Expected by the answers' own probabilities: ${percent(expected.accuracy)}, ${expected.valid ? "" : "not "}reliable (${expected.reason}).` : "";
  return [h("p", { class: "help" }, counted, reported, promised)];
}

/** Return the lines of a plot: the estimate of each part of the window, and its interval. */
function linesOf({ points, end, accuracy }, unit) {
  const known = points.map((one) => ({ at: (new Date(one.begin) / 2 + new Date(one.end) / 2 - new Date(end)) / unit, estimate: accuracy ? one.accuracy : one.error })).filter((one) => one.estimate);
  const line = (name, key) => ({ name, points: known.map(({ at, estimate }) => [at, estimate[key]]) });
  return [line("estimate", "value"), line("interval from", "low"), line("to", "high")];
}
