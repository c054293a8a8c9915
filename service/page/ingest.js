// Card of one ingest job: its report, and a button to train on what it made.

import { cardFrame } from "./card.js";
import { h } from "./dom.js";
import { when } from "./format.js";
import { failedReport, loadReport } from "./report.js";

/** Create the card. It calls `ended()` when the job has finished, and `train(label)` for "Train on it". */
export function ingestCard(job, { open, ended, train }) {
  const result = h("div", {});
  let label = "";
  const go = h("button", { type: "button", on: { click: () => train(label) } }, "Train on it");
  return cardFrame(job, {
    open,
    ended,
    content: result,
    buttons: [go],
    headline: ({ dataset, created_at: at }) => [dataset, when(at)].filter(Boolean).join(" · "),
    draw(newer) {
      label = newer.dataset;
      go.hidden = newer.state !== "succeeded";
    },
    async completed(whole) {
      result.replaceChildren(...(await resultOf(whole)).filter(Boolean));
    },
  });
}

async function resultOf(job) {
  const trouble = job.error && h("p", { class: "trouble" }, `${job.error.title}: ${job.error.detail}`);
  if (job.state === "succeeded") return [await loadReport(job.model, job.dataset, job.id)];
  return [trouble, job.report && failedReport(job)];
}
