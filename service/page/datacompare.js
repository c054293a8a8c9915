// Compare two dataset versions: counts by label and split, how each was made, their schemas and the ranges of their rows.

import { SPLITS, grouped, legend, splitBar, total } from "./counts.js";
import { h } from "./dom.js";
import { figure, when, words } from "./format.js";
import { warningsOf } from "./report.js";

const FACTS = { // row of the table -> its value for a version
  "Train": (one) => grouped(one.examples.train),
  "Validation": (one) => grouped(one.examples.validation),
  "Test": (one) => grouped(one.examples.test),
  "Rows of the file": (one) => grouped(one.rows),
  "Added": (one) => grouped(one.added),
  "Refused": (one) => grouped(one.rejected),
  "Duplicates": (one) => grouped(one.duplicates),
  "Conflicting labels": (one) => grouped(one.conflicting_labels),
  "Format": (one) => one.format,
  "Grown from": (one) => one.parent ?? "–",
  "Created": (one) => when(one.created_at),
  "SHA-256": (one) => h("code", { title: one.sha256 }, one.sha256.slice(0, 12)),
};

/** Show two versions, as the list of datasets has them, side by side. */
export function dataComparison(pair) {
  const names = pair.map((one) => one.dataset);
  const [left, right] = pair;
  const same = left.sha256 === right.sha256 && h("p", { class: "help" }, "Both have the same rows, splits and targets.");
  return h("section", { class: "card compare", "aria-label": "Comparison" }, h("h2", {}, `${names[0]} and ${names[1]}`), same,
    factsTable(pair, names), byLabel(pair, names),
    differences("Schema", pair.map((one) => one.schema), names, "Both have the same schema."),
    differences("Reference statistics", pair.map((one) => one.reference ?? {}), names, null),
    pair.map((one) => one.warnings.length > 0 && h("section", {}, h("h3", {}, `Warnings of ${one.dataset}`), warningsOf(one.warnings))));
}

function factsTable(pair, names) {
  const rows = Object.entries(FACTS).map(([name, value]) => [name, ...pair.map(value)]);
  return sideBySide("Counts and origin", ["Of the version", ...names], rows);
}

function byLabel([left, right], names) {
  const labels = [...new Set([...Object.keys(left.by_label), ...Object.keys(right.by_label)])];
  if (!labels.length) return null;
  const most = Math.max(1, ...[left, right].flatMap((one) => Object.values(one.by_label).map(total)));
  const rows = labels.map((label) => {
    const [before, after] = [left, right].map((one) => one.by_label[label]);
    return [label, cellOf(before, most), cellOf(after, most), signed(total(after ?? {}) - total(before ?? {}))];
  });
  return h("section", {}, h("h3", {}, "By label and split"), h("p", { class: "legend" }, legend()),
    sideBySide("Examples by label and split", ["Label", ...names, "Change"], rows, true));
}

/** Show the counts of a label in one version: a bar, and the number in each split. */
function cellOf(counts, most) {
  if (!counts) return "–";
  return h("span", { class: "bar-cell" }, splitBar(counts, most),
    h("span", { class: "help" }, SPLITS.map((split) => grouped(counts[split] ?? 0)).join(" / ")));
}

/** Show the entries of two nested objects that differ; `same` if none does, null to leave the section out. */
function differences(title, pair, names, same) {
  const [left, right] = pair.map((one) => new Map(flat(one)));
  const keys = [...new Set([...left.keys(), ...right.keys()])].filter((key) => left.get(key) !== right.get(key));
  if (!keys.length && same === null) return null;
  const rows = keys.map((key) => [key, ...[left, right].map((one) => (one.has(key) ? one.get(key) : "–"))]);
  return h("section", {}, h("h3", {}, title), keys.length ? sideBySide(title, ["Entry", ...names], rows, true) : h("p", { class: "help" }, same));
}

/** Return pairs of a path and the text of its value: { x: { low: 0 } } -> [["x: low", "0"]]. */
function flat(value, path = []) {
  if (Array.isArray(value)) return [[path.map(words).join(": "), value.map(figure).join(", ")]];
  if (value === null || typeof value !== "object") return [[path.map(words).join(": "), figure(value)]];
  return Object.entries(value).flatMap(([key, inner]) => flat(inner, [...path, key]));
}

function sideBySide(label, head, rows, tall = false) {
  return h("div", { class: tall ? "scroll tall" : "scroll", tabindex: "0", role: "region", "aria-label": label }, h("table", { class: "sides" },
    h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows.map(([name, ...cells]) => h("tr", {}, h("th", { scope: "row" }, name), cells.map((cell) => h("td", { class: "number" }, cell)))))));
}

function signed(change) {
  return change > 0 ? `+${grouped(change)}` : change < 0 ? `−${grouped(-change)}` : "0";
}
