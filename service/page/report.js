// Report of an ingest: counts, warnings, and the refused rows as a table.

import { getJson } from "./api.js";
import { trying } from "./dialogs.js";
import { h } from "./dom.js";

/** Return the path of a dataset version: "points@1" -> "models/classifier/datasets/points/versions/1". */
export function versionPath(model, label) {
  const [name, version] = label.split("@");
  return `models/${encodeURIComponent(model)}/datasets/${encodeURIComponent(name)}/versions/${version}`;
}

/** Load the report of a dataset version, of the first job that made it or of `job`, and show it with its first page of refused rows. */
export async function loadReport(model, label, job = null) {
  const path = `${versionPath(model, label)}/report?${job === null ? "" : `job=${job}&`}`;
  const report = await getJson(path);
  return reportView(report, report.refused, report.cursor, (cursor) => getJson(`${path}cursor=${cursor}`));
}

/** Show the report of a failed ingest: it has the first rows of each reason. */
export function failedReport(report) {
  const rows = report.by_reason.flatMap((reason) => reason.first.map((row) => ({ title: reason.title, ...row })));
  return reportView(report, rows, null);
}

function reportView(report, rows, cursor, next) {
  const body = h("tbody", {}, rows.map(rowOf));
  const more = h("button", { type: "button", hidden: cursor === null, on: { click: () => trying(nextPage) } }, "More rows");
  const shown = h("p", { class: "help", role: "status" });
  const count = () => (shown.textContent = `${body.rows.length} of ${report.rejected} refused rows are shown.`);

  async function nextPage() {
    more.disabled = true;
    try {
      const page = await next(cursor);
      cursor = page.cursor;
      body.append(...page.refused.map(rowOf));
      more.hidden = cursor === null;
      count();
    } finally {
      more.disabled = false;
    }
  }

  count();
  return h("div", { class: "report" },
    h("p", {}, `${report.rows} rows, ${report.good} good, ${report.rejected} refused.`),
    warningsOf(report.warnings),
    report.rejected > 0 && h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Refused rows" }, h("table", { class: "stacked rows" },
      h("thead", {}, h("tr", {}, ["Row", "Column", "Value", "Reason"].map((name) => h("th", { scope: "col" }, name)))), body)),
    report.rejected > 0 && shown, h("p", { class: "buttons" }, more));
}

function rowOf({ title, row, column, value, detail }) {
  return h("tr", {},
    h("th", { scope: "row", class: "number" }, String(row)),
    h("td", { data: { label: "Column" } }, column ?? "–"),
    h("td", { data: { label: "Value" } }, value === null ? "–" : h("code", {}, value)),
    h("td", { data: { label: "Reason" } }, `${title}: ${detail}`));
}

/** List warnings; null if there are none. */
function warningsOf(warnings) {
  return warnings.length ? h("ul", { class: "warnings" }, warnings.map((text) => h("li", {}, text))) : null;
}
