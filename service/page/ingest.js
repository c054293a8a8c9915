// Card of one ingest job: its state, progress and cancellation, then its report.

import { getJson, send } from "./api.js";
import { trying } from "./dialogs.js";
import { h } from "./dom.js";
import { follow, isFinal } from "./events.js";
import { when } from "./format.js";
import { failedReport, loadReport } from "./report.js";

/** Create a card with `update(job)`, `fold()` and `stop()`. It calls `ended()` when the job has finished, and `train(label)` for "Train on it". */
export function ingestCard(first, { open = false, ended, train }) {
  let job = first;
  let loaded = false;
  const ending = new AbortController();
  const state = h("span", { class: "chip" });
  const summary = h("span", { class: "summary" });
  const bar = h("progress", { max: 1, "aria-label": "Progress" });
  const result = h("div", {});
  const cancel = h("button", { type: "button", on: { click: () => trying(() => send(`jobs/${job.id}/cancel`, { method: "POST" })) } }, "Cancel");
  const go = h("button", { type: "button", on: { click: () => train(job.dataset) } }, "Train on it");
  const element = h("details", { class: "job card", data: { job: job.id } }, h("summary", {}, state, summary),
    h("div", { class: "body" }, bar, result, h("p", { class: "buttons" }, cancel, go)));

  function draw() {
    const over = isFinal(job.state);
    state.textContent = job.state;
    state.dataset.state = job.state;
    summary.textContent = [job.dataset, when(job.created_at)].filter(Boolean).join(" · ");
    bar.hidden = cancel.hidden = over;
    go.hidden = job.state !== "succeeded";
    if (job.progress?.steps) bar.value = job.progress.step / job.progress.steps;
    else bar.removeAttribute("value");
  }

  async function load() {
    if (loaded) return;
    loaded = true;
    if (!isFinal(job.state)) {
      await trying(() => follow(job.id, onEvent, ending.signal));
      if (ending.signal.aborted) return;
      ended();
    }
    job = (await trying(() => getJson(`jobs/${job.id}`))) ?? job; // the list leaves out the rows of reports
    draw();
    result.replaceChildren(...(await resultOf(job)));
  }

  function onEvent(kind, { job: _, ...data }) {
    job = kind === "progress" ? { ...job, progress: data } : { ...job, ...data };
    draw();
  }

  element.addEventListener("toggle", () => element.open && load());
  element.open = open;
  draw();
  function update(newer) {
    if (loaded) return; // its events, or its result, are more recent
    job = newer;
    draw();
  }

  return { element, update, fold: () => (element.open = false), stop: () => ending.abort() };
}

async function resultOf(job) {
  const parts = [];
  if (job.error) parts.push(h("p", { class: "trouble" }, `${job.error.title}: ${job.error.detail}`));
  if (job.state === "succeeded") parts.push(await trying(() => loadReport(job.model, job.dataset, job.id)));
  else if (job.report) parts.push(failedReport(job.report));
  return parts.filter(Boolean);
}
