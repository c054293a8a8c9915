// Compare two versions: the curves of their jobs, their metrics, and the hyperparameters that differ.

import { getJson } from "./api.js";
import { h } from "./dom.js";
import { figure, words } from "./format.js";
import { linePlot } from "./plot.js";

/** Throws Problem if a job's history cannot be loaded. */
export async function comparison(model, pair) {
  const names = pair.map((version) => `version ${version.version}`);
  const runs = await Promise.all(pair.map(async ({ job }) => (job ? (await getJson(`jobs/${job}/history`)).points : [])));
  const loss = linePlot({ label: "Loss", xLabel: "epoch", log: true });
  loss.update(runs.map((points, at) => ({ name: names[at], points: points.map((one) => [(one.step * one.epochs) / one.steps, one.loss]) })));
  const metric = linePlot({ label: `${words(model.metric ?? "metric")} on the validation split`, xLabel: "epoch", log: true });
  metric.update(runs.map((points, at) => ({ name: names[at],
    points: points.filter((one) => model.metric in (one.metrics ?? {})).map((one) => [one.epoch, one.metrics[model.metric]]) })));
  const without = names.filter((_, at) => !runs[at].length);
  const note = without.length ? h("p", { class: "help" }, `No training curve for ${without.join(" and ")}: not trained by a job of this service.`) : null;
  const element = h("section", { class: "card compare", "aria-label": "Comparison" }, h("h2", {}, `${names[0]} and ${names[1]}`),
    h("div", { class: "plots" }, loss.element, metric.element), note,
    h("div", { class: "scroll" }, side("Metrics", pair.map((one) => one.metrics), names), differing(pair, names)));
  return {
    element,
    stop() {
      loss.stop();
      metric.stop();
    },
  };
}

function side(title, [left, right], names, keys = [...new Set([...Object.keys(left), ...Object.keys(right)])].sort()) {
  return h("table", {},
    h("thead", {}, h("tr", {}, [title, ...names].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, keys.map((key) => h("tr", {}, h("th", { scope: "row" }, words(key)),
      [left, right].map((one) => h("td", { class: "number" }, figure(one[key])))))));
}

function differing(pair, names) {
  const [left, right] = pair.map((version) => version.config);
  const keys = [...new Set([...Object.keys(left), ...Object.keys(right)])].filter((key) => JSON.stringify(left[key]) !== JSON.stringify(right[key]));
  const known = [left, right].every((config) => Object.keys(config).length);
  const text = known ? "Both were trained with the same hyperparameters." : "The hyperparameters of an uploaded version are not known.";
  return keys.length ? side("Differences", [left, right], names, keys) : h("p", { class: "help" }, text);
}
