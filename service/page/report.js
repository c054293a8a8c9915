// Report of an ingest: counts, warnings, examples, and the refused rows: pictures as thumbnails, other data as a table.

import { getJson } from "./api.js";
import { countsTable, grouped } from "./counts.js";
import { trying } from "./dialogs.js";
import { h } from "./dom.js";
import { gallery } from "./thumbs.js";

/** Return the path of a dataset version: "points@1" -> "models/classifier/datasets/points/versions/1". */
export function versionPath(model, label) {
  const [name, version] = label.split("@");
  return `models/${encodeURIComponent(model)}/datasets/${encodeURIComponent(name)}/versions/${version}`;
}

/** Load the report of a dataset version, of the first job that made it or of `job`, and show it with the version's counts,
 * some examples, and the first page of refused rows.
 */
export async function loadReport(model, label, job = null) {
  const path = versionPath(model, label);
  const ofJob = `${path}/report?${job === null ? "" : `job=${job}&`}`;
  const [report, version, { examples }] = await Promise.all([getJson(ofJob), getJson(path), getJson(`${path}/examples`)]);
  const refused = refusedRows(report, report.refused, job ?? version.job, report.cursor, (cursor) => getJson(`${ofJob}cursor=${cursor}`));
  return reportView(report, h("h3", {}, "Examples by label and split"), countsTable(version, `Examples of ${label}`), examplesOf(path, examples), refused);
}

/** Show the report of a failed ingest: it has the first rows of each reason. */
export function failedReport({ id, report }) {
  const rows = report.by_reason.flatMap((reason) => reason.first.map((row) => ({ title: reason.title, ...row })));
  return reportView(report, refusedRows(report, rows, id, null));
}

function reportView(report, ...parts) {
  return h("div", { class: "report" },
    h("p", {}, `${grouped(report.rows)} rows, ${grouped(report.good)} good, ${grouped(report.rejected)} refused.`), warningsOf(report.warnings), ...parts);
}

/** Show thumbnails of some examples in a list for each label. */
function examplesOf(path, examples) {
  const labels = [...new Set(examples.map((one) => one.label))];
  return labels.length > 0 && h("section", {}, h("h3", {}, "Some of them"), h("div", { class: "scroll tall by-label", tabindex: "0", role: "region", "aria-label": "Pictures by label" },
    labels.map((label) => {
      const about = label === null ? "Examples" : `Examples of ${label}`;
      const items = examples.filter((one) => one.label === label).map((one) => ({
        path: `${path}/examples/${one.digest}.png`, alt: label === null ? "an example" : `an example of ${label}`, lines: [one.split] }));
      return h("section", {}, label !== null && h("h4", {}, label), gallery(items, about).element);
    })));
}

function refusedRows(report, rows, job, cursor, next) {
  if (report.rejected === 0) return null;
  const list = rows.some((row) => row.picture) ? pictures(rows, job) : table(rows);
  const more = h("button", { type: "button", hidden: cursor === null, on: { click: () => trying(nextPage) } }, "More rows");
  const shown = h("p", { class: "help", role: "status" });
  let count = 0;

  function counted(added) {
    count += added;
    shown.textContent = `${grouped(count)} of ${grouped(report.rejected)} refused rows are shown.`;
  }

  async function nextPage() {
    more.disabled = true;
    try {
      const page = await next(cursor);
      cursor = page.cursor;
      list.append(page.refused);
      more.hidden = cursor === null;
      counted(page.refused.length);
    } finally {
      more.disabled = false;
    }
  }

  counted(rows.length);
  return h("section", {}, h("h3", {}, "Refused rows"), reasonsOf(report.by_reason),
    h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Refused rows" }, list.element),
    shown, h("p", { class: "buttons" }, more));
}

function reasonsOf(reasons) {
  return reasons.length > 1 && h("p", { class: "help" }, reasons.map(({ title, rows }) => `${title}: ${grouped(rows)}`).join(" · "));
}

function pictures(rows, job) {
  const item = ({ title, row, value, detail, picture }) => ({
    path: picture ? `jobs/${job}/refused/${row}.png` : null,
    alt: `refused row ${row}`,
    title: `Row ${row}`,
    lines: [value, `${title}: ${detail}`].filter((line) => line !== null),
  });
  const list = gallery(rows.map(item), "Refused pictures");
  return { element: list.element, append: (more) => list.append(more.map(item)) };
}

function table(rows) {
  const body = h("tbody", {}, rows.map(rowOf));
  const element = h("table", { class: "stacked rows" },
    h("thead", {}, h("tr", {}, ["Row", "Column", "Value", "Reason"].map((name) => h("th", { scope: "col" }, name)))), body);
  return { element, append: (more) => body.append(...more.map(rowOf)) };
}

function rowOf({ title, row, column, value, detail }) {
  return h("tr", {},
    h("th", { scope: "row", class: "number" }, String(row)),
    h("td", { data: { label: "Column" } }, column ?? "–"),
    h("td", { data: { label: "Value" } }, value === null ? "–" : h("code", {}, value)),
    h("td", { data: { label: "Reason" } }, `${title}: ${detail}`));
}

/** List warnings; null if there are none. */
export function warningsOf(warnings) {
  return warnings.length ? h("ul", { class: "warnings" }, warnings.map((text) => h("li", {}, text))) : null;
}
