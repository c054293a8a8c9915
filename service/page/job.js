// Card of one job: its state, live curves, and the gate's decision with its reason.

import { asUrl, getJson } from "./api.js";
import { cardFrame } from "./card.js";
import { showPicture, trying } from "./dialogs.js";
import { h } from "./dom.js";
import { isFinal } from "./events.js";
import { duration, figure, when, words } from "./format.js";
import { linePlot } from "./plot.js";

/** Create the card; it calls `ended()` when the job has finished. */
export function jobCard(job, { open, ended }) {
  let points = [];
  const facts = h("div", { class: "facts" });
  const loss = linePlot({ label: "Loss", xLabel: "epoch", height: 180, log: true });
  const metric = linePlot({ label: "On the validation split", xLabel: "epoch", height: 180, log: true });
  const plot = h("button", { type: "button", on: { click: () => trying(() => picture(job)) } }, "Picture of the run");

  function draw(newer) {
    plot.hidden = points.length === 0;
    facts.replaceChildren(...factsOf(newer));
    loss.element.hidden = isFinal(newer.state) && points.length === 0; // the job finished before its first step
    loss.update([{ name: "loss", points: points.map((point) => [point.step * (point.epochs / point.steps || 1), point.loss]) }]);
    const names = [...new Set(points.flatMap((point) => Object.keys(point.metrics ?? {})))];
    metric.element.hidden = names.length === 0;
    metric.update(names.map((name) => ({ name: words(name), named: true,
      points: points.filter((point) => name in (point.metrics ?? {})).map((point) => [point.epoch, point.metrics[name]]) })));
  }

  const card = cardFrame(job, {
    open,
    ended,
    headline,
    draw,
    content: [facts, h("div", { class: "plots" }, loss.element, metric.element)],
    buttons: [plot],
    progressed(point) {
      points = [...points.filter((one) => one.step < point.step), point]; // a resumed job repeats some steps
    },
    async completed() {
      if (!points.length) ({ points } = await getJson(`jobs/${job.id}/history`));
      card.redraw();
    },
  });
  return {
    ...card,
    stop() {
      card.stop();
      loss.stop();
      metric.stop();
    },
  };
}

async function picture(job) {
  const url = await asUrl(`jobs/${job.id}/plot.png`);
  await showPicture(`Run of ${job.model}, ${when(job.created_at)}`, url);
  URL.revokeObjectURL(url);
}

function headline(job) {
  const began = job.started_at ?? job.created_at;
  const parts = [job.dataset, when(job.created_at)].filter(Boolean);
  if (job.state === "running" && job.progress) parts.push(`epoch ${job.progress.epoch} of ${job.progress.epochs}`);
  if (job.waits_for) parts.push(`waits for ${job.waits_for}`);
  if (job.finished_at) parts.push(duration(began, job.finished_at));
  if (job.version) parts.push(`version ${job.version}`);
  if (job.gate) parts.push(OUTCOMES[outcomeOf(job.gate)][0]);
  return parts.join(" · ");
}

const OUTCOMES = { promoted: ["went live", "Promoted"], kept: ["not promoted", "Not promoted"], trial: ["on trial", "On trial"] };

function outcomeOf(gate) {
  return gate.trial ? "trial" : gate.decision;
}

function factsOf(job) {
  const facts = [];
  if (job.gate) {
    const decision = OUTCOMES[outcomeOf(job.gate)][1];
    const values = `${words(job.gate.metric)}: ${figure(job.gate.candidate)}, live ${figure(job.gate.live)}`;
    facts.push(h("p", { class: `gate ${job.gate.decision}` }, h("strong", {}, decision), `: ${job.gate.reason}. `, h("span", { class: "help" }, `(${values})`)));
    if (job.gate.trial) facts.push(h("p", {}, h("a", { href: `#versions/${job.model}` }, "Show the trial")));
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
