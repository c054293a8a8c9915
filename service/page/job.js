// Card of one job: its state, live curves, and the gate's decision with its reason.

import { asUrl, getJson, send } from "./api.js";
import { showPicture, trying } from "./dialogs.js";
import { h } from "./dom.js";
import { follow, isFinal } from "./events.js";
import { duration, figure, when, words } from "./format.js";
import { linePlot } from "./plot.js";

/** Create a card with `update(job)`, `fold()` and `stop()`; it calls `ended()` when the job has finished. */
export function jobCard(first, { open = false, ended = () => {} }) {
  let job = first;
  let points = [];
  let drawn = false;
  const ending = new AbortController();
  const state = h("span", { class: "chip" });
  const summary = h("span", { class: "summary" });
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const facts = h("div", { class: "facts" });
  const loss = linePlot({ label: "Loss", xLabel: "epoch", height: 180, log: true });
  const metric = linePlot({ label: "On the validation split", xLabel: "epoch", height: 180, log: true });
  const cancel = h("button", { type: "button", on: { click: () => trying(() => send(`jobs/${job.id}/cancel`, { method: "POST" })) } }, "Cancel");
  const plot = h("button", { type: "button", on: { click: () => trying(picture) } }, "Picture of the run");
  const body = h("div", { class: "body" }, bar, facts, h("div", { class: "plots" }, loss.element, metric.element),
    h("p", { class: "buttons" }, cancel, plot));
  const element = h("details", { class: "job card", data: { job: job.id } },
    h("summary", {}, state, summary), body);

  async function picture() {
    const url = await asUrl(`jobs/${job.id}/plot.png`);
    await showPicture(`Run of ${job.model}, ${when(job.created_at)}`, url);
    URL.revokeObjectURL(url);
  }

  function draw() {
    const over = isFinal(job.state);
    state.textContent = job.state;
    state.dataset.state = job.state;
    summary.textContent = headline(job);
    cancel.hidden = over;
    plot.hidden = points.length === 0;
    const progress = job.progress;
    bar.hidden = over;
    bar.value = progress?.steps ? progress.step / progress.steps : 0;
    facts.replaceChildren(...factsOf(job));
    loss.element.hidden = over && points.length === 0; // the job finished before its first step
    loss.update([{ name: "loss", points: points.map((point) => [point.step * (point.epochs / point.steps || 1), point.loss]) }]);
    const names = [...new Set(points.flatMap((point) => Object.keys(point.metrics ?? {})))];
    metric.element.hidden = names.length === 0;
    metric.update(names.map((name) => ({ name: words(name), named: true,
      points: points.filter((point) => name in (point.metrics ?? {})).map((point) => [point.epoch, point.metrics[name]]) })));
  }

  const drawSoon = () => {
    if (drawn) return;
    drawn = true;
    requestAnimationFrame(() => {
      drawn = false;
      draw();
    });
  };

  function onEvent(kind, data) {
    const { job: _, attempt, ...point } = data;
    if (kind === "progress") {
      points = [...points.filter((one) => one.step < point.step), point]; // a resumed job repeats some steps
      job = { ...job, attempt, progress: point };
    } else {
      job = { ...job, attempt, ...point };
    }
    drawSoon();
  }

  let watching = false;
  async function watch() {
    if (watching) return;
    watching = true;
    await trying(() => follow(job.id, onEvent, ending.signal));
    if (ending.signal.aborted) return;
    job = (await trying(() => getJson(`jobs/${job.id}`))) ?? job;
    draw();
    ended();
  }

  async function load() {
    if (!isFinal(job.state)) await watch();
    else if (!points.length) points = (await trying(() => getJson(`jobs/${job.id}/history`)))?.points ?? [];
    draw();
  }

  element.addEventListener("toggle", () => element.open && load());
  element.open = open;
  draw();
  return {
    element,
    update(newer) {
      const over = isFinal(newer.state) && !isFinal(job.state);
      if (watching && !over) return; // the event stream is more recent
      job = newer;
      draw();
    },
    fold: () => (element.open = false),
    stop() {
      ending.abort();
      loss.stop();
      metric.stop();
    },
  };
}

function headline(job) {
  const began = job.started_at ?? job.created_at;
  const parts = [job.dataset, when(job.created_at)].filter(Boolean);
  if (job.state === "running" && job.progress) parts.push(`epoch ${job.progress.epoch} of ${job.progress.epochs}`);
  if (job.finished_at) parts.push(duration(began, job.finished_at));
  if (job.version) parts.push(`version ${job.version}`);
  if (job.gate) parts.push(job.gate.decision === "promoted" ? "went live" : "not promoted");
  return parts.join(" · ");
}

function factsOf(job) {
  const facts = [];
  if (job.gate) {
    const decision = job.gate.decision === "promoted" ? "Promoted" : "Not promoted";
    const values = `${words(job.gate.metric)}: ${figure(job.gate.candidate)}, live ${figure(job.gate.live)}`;
    facts.push(h("p", { class: `gate ${job.gate.decision}` }, h("strong", {}, decision), `: ${job.gate.reason}. `, h("span", { class: "help" }, `(${values})`)));
    for (const part of ["old_rows", "new_rows"]) {
      if (job.gate[part]) facts.push(h("p", { class: "help gate-part" }, `${words(part)}: ${partOf(job.gate[part])}`));
    }
  }
  if (job.error) facts.push(h("p", { class: "trouble" }, `${job.error.title}: ${job.error.detail}`));
  if (job.attempt > 1) facts.push(h("p", { class: "help" }, `Attempt ${job.attempt}`));
  if (job.dataset) facts.push(h("p", { class: "help" }, `Dataset: ${job.dataset}`));
  facts.push(configOf(job.config));
  return facts;
}

/** Describe the comparison on the old or the new rows of the validation split. */
function partOf({ rows, differ, candidate_right: ours, live_right: theirs, gain, p_value: p }) {
  return `${rows} examples, ${differ} of them answered differently; better in ${ours}, live in ${theirs}; gain ${figure(gain)}, p = ${figure(p)}`;
}

/** List every hyperparameter, collapsed. */
export function configOf(config) {
  const pairs = Object.entries(config).map(([name, value]) => [h("dt", {}, words(name)), h("dd", {}, figure(value))]);
  return h("details", { class: "config" }, h("summary", {}, "Hyperparameters"), h("dl", {}, pairs.flat()));
}
