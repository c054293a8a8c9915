// The Data section: the model's datasets and their versions, uploads, and the reports of their rows.

import { getJson, send } from "./api.js";
import { addForm } from "./add.js";
import { SPLITS, grouped, splitBar, total } from "./counts.js";
import { dataComparison } from "./datacompare.js";
import { confirmed, notify, trying } from "./dialogs.js";
import { h } from "./dom.js";
import { when } from "./format.js";
import { ingestCard } from "./ingest.js";
import { jobList } from "./joblist.js";
import { pairChoice } from "./pair.js";
import { loadReport, versionPath, warningsOf } from "./report.js";

const COLUMNS = ["Compare", "Dataset", "Examples", "Warnings", "Trained", "Created", "Actions"];

export function dataView({ model }) {
  const table = h("div", { class: "scroll card" });
  const none = h("p", { class: "nothing-yet", hidden: true }, "No datasets yet. Data of the recipe that it does not declare appears here once a version was trained on it.");
  const report = h("section", { class: "card report-place", hidden: true, tabindex: "-1", "aria-label": "Report" });
  const compared = h("div", {});
  const choice = pairChoice(compare);
  const jobs = jobList({ model, kind: "ingest", also: loadDatasets, cardOf: (job, open) => ingestCard(job, { open, ended: () => jobs.refresh(), train }) });
  const form = model.target ? addForm(model, jobs.add) : null;
  let datasets = null;
  let stopped = false;

  async function loadDatasets(options) {
    const [found] = await Promise.all([getJson(`models/${encodeURIComponent(model.name)}/datasets`, options), form?.refresh()]);
    if (stopped || JSON.stringify(datasets) === JSON.stringify(found.datasets)) return; // keeps what has the focus
    ({ datasets } = found);
    draw();
  }

  function train(label) {
    location.hash = `#train/${model.name}/${label}`;
  }

  function draw() {
    const uploaded = datasets.filter((one) => !one.built_in).map((one) => one.dataset);
    form?.offer([...uploaded].reverse());
    choice.keep(uploaded);
    none.hidden = datasets.length > 0;
    table.hidden = datasets.length === 0;
    const most = Math.max(1, ...datasets.filter((one) => !one.built_in).map((one) => total(one.examples)));
    table.replaceChildren(h("table", { class: "stacked datasets" },
      h("thead", {}, h("tr", {}, COLUMNS.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, datasets.map((one) => row(one, most)))));
    compare(choice.pair());
  }

  function row(one, most) {
    const cell = (label, ...content) => h("td", { data: { label } }, ...content);
    const actions = [
      model.target && button("Train on it", () => train(one.dataset), one.dataset),
      !one.built_in && button("Report", () => trying(() => showReport(one)), one.dataset),
      !one.built_in && button("Delete", () => remove(one), one.dataset),
    ];
    return h("tr", { data: { dataset: one.dataset } },
      cell("Compare", one.built_in ? "–" : choice.box(one.dataset, `Compare ${one.dataset}`)),
      h("th", { scope: "row" }, one.dataset, one.built_in && h("span", { class: "chip" }, "built in"),
        one.sha256 && h("small", { class: "help" }, h("code", { title: `SHA-256 ${one.sha256}` }, one.sha256.slice(0, 12))),
        one.parent && h("small", { class: "help" }, `grown from ${one.parent}`)),
      cell("Examples", countsOf(one, one.built_in ? Math.max(1, total(one.examples)) : most)), // data of a recipe would dwarf others
      cell("Warnings", one.warnings.length ? h("details", {}, h("summary", { class: "warned" }, String(one.warnings.length)), warningsOf(one.warnings)) : "–"),
      cell("Trained", one.trained.length ? `version ${one.trained.join(", ")}` : "–"),
      cell("Created", when(one.created_at)),
      h("td", {}, h("span", { class: "does" }, actions)));
  }

  /** Show two versions side by side, in the order of the list. */
  function compare(pair) {
    const found = pair ? datasets.filter((one) => pair.includes(one.dataset)) : [];
    compared.replaceChildren(...(found.length === 2 ? [dataComparison(found)] : []));
  }

  async function showReport(one) {
    const found = await loadReport(model.name, one.dataset);
    report.replaceChildren(h("h2", {}, `Report of ${one.dataset}`), found);
    report.hidden = false;
    report.focus();
  }

  async function remove(one) {
    const text = "It can no longer be trained on, and its number is not used again. Versions of the model that were trained on it stay.";
    if (!(await confirmed(`Delete ${one.dataset}?`, text, "Delete"))) return;
    const done = await trying(() => send(versionPath(model.name, one.dataset), { method: "DELETE" }));
    if (!done) return; // the service's reason is shown, such as a job that uses it
    notify(`${one.dataset} is deleted.`);
    report.hidden = true;
    await jobs.refresh();
  }

  const says = model.target ? `Rows of your files become examples if /predict would take them. The recipe learns a ${model.target}. Select two versions to compare them.`
    : `${model.name} learns no files: its recipe has no target, so it is trained on the data of the recipe only.`;
  const element = h("section", {}, h("div", { class: "heading" }, h("h1", {}, `Data of ${model.name}`), h("p", {}, says)),
    table, none, compared, report, h("div", { class: "train add" }, form?.element,
      form && h("section", { "aria-label": "Uploads" }, h("h2", {}, "Uploads"), jobs.element)));
  return {
    element,
    refresh: jobs.refresh,
    stop() {
      stopped = true;
      jobs.stop();
    },
  };
}

function button(text, click, about) {
  return h("button", { type: "button", class: "small", "aria-label": `${text}: ${about}`, on: { click } }, text);
}

function countsOf({ examples, by_label: byLabel }, most) {
  const known = SPLITS.filter((split) => split in examples);
  if (!known.length) return "as the recipe loads them";
  const labels = Object.keys(byLabel).length;
  return h("span", { class: "bar-cell" }, splitBar(examples, most), h("span", { class: "number" }, known.map((split) => h("span", {}, `${split} ${grouped(examples[split])}`))),
    labels > 0 && h("span", { class: "help" }, labels === 1 ? "1 label" : `${labels} labels`));
}
