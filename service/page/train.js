// The Train section: a form for the recipe's hyperparameters, and the list of jobs.

import { getJson, postJson } from "./api.js";
import { notify, trying } from "./dialogs.js";
import { h } from "./dom.js";
import { schemaForm } from "./form.js";
import { words } from "./format.js";
import { jobCard } from "./job.js";
import { jobList } from "./joblist.js";

const POLICIES = [ // value of "promote", its text
  ["if_better", "if it is better than the live version"],
  [{ if_better: { alpha: 0.05 } }, "if it is better beyond chance (p < 0.05)"],
  ["no_worse", "if it is not worse by more than a margin"],
  ["trial", "if it proves itself in a trial on live requests"],
  ["always", "always"],
  ["never", "never, only register it"],
];

export function trainView({ model, dataset, refreshModels }) {
  const none = h("p", { class: "nothing-yet" }, "No jobs yet. Jobs appear here with their curves.");
  const jobs = jobList({ model, kind: "train", none, openFirst: true, cardOf: (job, open) => jobCard(job, { open, ended: refreshModels }) });
  const form = formOf(model, dataset, jobs.add);
  const heading = h("div", { class: "heading" }, h("h1", {}, `Train ${model.name}`),
    h("p", {}, model.metric ? `The gate compares ${words(model.metric)}: ${model.higher_is_better ? "higher" : "lower"} is better.` : ""));
  const element = h("section", {}, heading, h("div", { class: "train" }, form,
    h("section", { "aria-label": "Jobs" }, h("h2", {}, "Jobs"), none, jobs.element)));
  return { element, refresh: () => jobs.refresh({ quiet: true }), stop: jobs.stop };
}

function formOf(model, dataset, started) {
  if (!model.hyperparameters) return h("p", { class: "card" }, model.fault ?? `${model.name} has no recipe: it can be served, but not trained.`);
  if (!model.hyperparameters.$ref) return trainForm(model, dataset, started);
  const place = h("p", { class: "card" }, "Loading …"); // the list of many models has references to the schemas
  trying(() => getJson(`models/${model.name}`)).then((found) => found && place.replaceWith(trainForm(found, dataset, started)));
  return place;
}

function trainForm(model, dataset, started) {
  const fields = schemaForm(model.hyperparameters, "hp");
  const promote = h("select", { id: "promote" }, POLICIES.map(([, text], at) => h("option", { value: at }, text)));
  const data = model.target ? dataChoice(model, dataset) : null;
  const start = h("button", { class: "main" }, "Start training");
  const reset = h("button", { type: "button", on: { click: fields.reset } }, "Defaults");
  const trouble = h("p", { class: "trouble", role: "alert" });

  async function submit(event) {
    event.preventDefault();
    trouble.textContent = "";
    start.disabled = true;
    try {
      // one Idempotency-Key per click: a retry returns the same job
      const headers = { "Idempotency-Key": Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join("-") };
      const job = await postJson("train", { model: model.name, config: fields.read(), dataset: data?.read() ?? null, promote: POLICIES[promote.value][0] }, { headers });
      started(job);
      notify(`${model.name} is queued for training.`);
    } catch (error) {
      trouble.textContent = error.message;
    } finally {
      start.disabled = false;
    }
  }

  return h("form", { class: "card", on: { submit }, "aria-label": "Hyperparameters" },
    h("p", { class: "help" }, model.hyperparameters.description ?? ""),
    data?.element,
    fields.element,
    h("div", { class: "field policy" }, h("label", { for: "promote" }, "make it live"), promote),
    trouble,
    h("p", { class: "buttons" }, start, reset));
}

/** Create the choice between the recipe's own data and the model's dataset versions; `dataset` is chosen at first. */
function dataChoice(model, dataset) {
  const select = h("select", { id: "dataset-version" }, h("option", { value: "" }, "the recipe's own data"));
  if (dataset) offer([dataset]);
  select.value = dataset;
  getJson(`models/${encodeURIComponent(model.name)}/datasets`, { quiet: true }).then(({ datasets }) => {
    const chosen = select.value;
    const labels = datasets.filter((one) => !one.built_in || one.dataset === dataset).map((one) => one.dataset).reverse();
    offer(dataset && !labels.includes(dataset) ? [dataset, ...labels] : labels);
    select.value = chosen;
  }).catch(() => {}); // the page's header shows a lost connection or a missing key
  function offer(labels) {
    select.replaceChildren(select.options[0], ...labels.map((label) => h("option", { value: label }, label)));
  }
  return {
    element: h("div", { class: "field data" }, h("label", { for: select.id }, "train on"), select),
    read: () => select.value || null,
  };
}
