// The Data section: the model's datasets and their versions, uploads, and the reports of their rows.

import { getJson, send } from "./api.js";
import { addForm } from "./add.js";
import { confirmed, notify, trying } from "./dialogs.js";
import { h } from "./dom.js";
import { when } from "./format.js";
import { ingestCard } from "./ingest.js";
import { loadReport, versionPath } from "./report.js";

const SPLITS = ["train", "validation", "test"];
const POLL_MS = 4000; // other clients may add data
const MOST_JOBS = 20; // newest jobs that are searched for ingests

export function dataView({ model }) {
  const cards = new Map();
  const table = h("div", { class: "scroll card" });
  const none = h("p", { class: "nothing-yet", hidden: true }, "No datasets yet. Data of the recipe that it does not declare appears here once a version was trained on it.");
  const report = h("section", { class: "card report-place", hidden: true, tabindex: "-1", "aria-label": "Report" });
  const list = h("div", { class: "jobs" });
  const form = model.target ? addForm(model, queued) : null;
  let drawn = "";
  let stopped = false;

  async function load(options) {
    const name = encodeURIComponent(model.name);
    const found = await Promise.all([getJson(`models/${name}/datasets`, options), getJson(`jobs?model=${name}&limit=${MOST_JOBS}`, options)]);
    if (stopped) return;
    const [{ datasets }, { jobs }] = found;
    drawTable(datasets);
    const elements = jobs.filter((job) => job.kind === "ingest").map((job) => card(job));
    const same = elements.length === list.children.length && elements.every((one, at) => one === list.children[at]);
    if (!same) list.replaceChildren(...elements);
  }

  const refresh = () => trying(() => load());
  const timer = setInterval(() => document.hidden || load({ quiet: true }).catch(() => {}), POLL_MS); // the header shows a lost connection

  function card(job, open = false) {
    if (!cards.has(job.id)) cards.set(job.id, ingestCard(job, { open, ended: refresh, train }));
    else cards.get(job.id).update(job);
    return cards.get(job.id).element;
  }

  function queued(job) {
    if (stopped) return;
    for (const one of cards.values()) one.fold();
    list.prepend(card(job, true));
  }

  const train = (label) => (location.hash = `#train/${model.name}/${label}`);

  function drawTable(datasets) {
    if (drawn === JSON.stringify(datasets)) return; // keeps what is unfolded or has the focus
    drawn = JSON.stringify(datasets);
    form?.offer(datasets.filter((one) => !one.built_in).map((one) => one.dataset).reverse());
    none.hidden = datasets.length > 0;
    table.hidden = datasets.length === 0;
    const names = ["Dataset", "Examples", "By label", "SHA-256", "Grown from", "Trained", "Created", "Actions"];
    table.replaceChildren(h("table", { class: "stacked datasets" },
      h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, datasets.map(row))));
  }

  function row(one) {
    const cell = (label, ...content) => h("td", { data: { label } }, ...content);
    const actions = [
      model.target && button("Train on it", () => train(one.dataset), one.dataset),
      !one.built_in && button("Report", () => trying(() => showReport(one)), one.dataset),
      !one.built_in && button("Delete", () => remove(one), one.dataset),
    ];
    return h("tr", {},
      h("th", { scope: "row" }, one.dataset, one.built_in && h("span", { class: "chip" }, "built in")),
      cell("Examples", countsOf(one)),
      cell("By label", labelsOf(one.by_label)),
      cell("SHA-256", one.sha256 ? h("code", { title: one.sha256 }, one.sha256.slice(0, 12)) : "–"),
      cell("Grown from", one.parent ?? "–"),
      cell("Trained", one.trained.length ? `version ${one.trained.join(", ")}` : "–"),
      cell("Created", when(one.created_at)),
      h("td", {}, h("span", { class: "does" }, actions)));
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
    await refresh();
  }

  const says = model.target ? `Rows of your files become examples if /predict would take them. The recipe learns a ${model.target}.`
    : `${model.name} learns no files: its recipe has no target, so it is trained on the data of the recipe only.`;
  const element = h("section", {}, h("div", { class: "heading" }, h("h1", {}, `Data of ${model.name}`), h("p", {}, says)),
    table, none, report, h("div", { class: "train add" }, form?.element,
      form && h("section", { "aria-label": "Uploads" }, h("h2", {}, "Uploads"), list)));
  return {
    element,
    refresh,
    stop() {
      stopped = true;
      clearInterval(timer);
      for (const one of cards.values()) one.stop();
    },
  };
}

function button(text, click, about) {
  return h("button", { type: "button", class: "small", "aria-label": `${text}: ${about}`, on: { click } }, text);
}

function countsOf({ examples }) {
  const known = SPLITS.filter((split) => split in examples);
  return known.length ? h("span", { class: "number" }, known.map((split) => h("span", {}, `${split} ${examples[split]}`))) : "as the recipe loads them";
}

/** List the labels with their examples in train, validation and test, collapsed. */
function labelsOf(byLabel) {
  const labels = Object.entries(byLabel);
  if (!labels.length) return "–";
  const pairs = labels.map(([label, counts]) => [h("dt", {}, label), h("dd", {}, SPLITS.map((split) => counts[split] ?? 0).join(" / "))]);
  return h("details", { class: "config" }, h("summary", {}, labels.length === 1 ? "1 label" : `${labels.length} labels`),
    h("small", { class: "help" }, SPLITS.join(" / ")), h("dl", {}, pairs.flat()));
}
