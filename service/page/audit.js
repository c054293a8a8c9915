// The Audit section: captured answers to label one by one, the accuracy that follows, and what is captured.

import { accuracyCard } from "./accuracy.js";
import { getJson } from "./api.js";
import { auditList } from "./auditlist.js";
import { captureCard } from "./capture.js";
import { h } from "./dom.js";
import { labellingCard } from "./labelling.js";

const ORDERS = [
  ["random", "random", "A fair sample of all answers: its labels make the accuracy."],
  ["uncertain", "least sure first", "Finds mistakes sooner, to learn from. These labels do not count in the accuracy, which they would make look too low."],
];
const BLIND = "The model's answer is shown after yours: seeing it first makes people agree with it. Skip only what you cannot tell, as what is hard would be missing in the accuracy.";

export function auditView({ model }) {
  const path = `models/${encodeURIComponent(model.name)}`;
  const version = h("select", { id: "audit-version", on: { change: begin } });
  const order = h("select", { id: "audit-order", "aria-describedby": "audit-help", on: { change: begin } }, ORDERS.map(([value, text]) => h("option", { value }, text)));
  const help = h("p", { class: "help", id: "audit-help" });
  const choices = h("div", {}, h("div", { class: "controls" }, h("p", {}, h("label", { for: version.id }, "Answers of version"), version), h("p", {}, h("label", { for: order.id }, "Order"), order)), help);
  const accuracy = accuracyCard(model);
  const capture = captureCard(model, refresh);
  const card = labellingCard(model, { choices, labelled: accuracy.refresh, atEnd });
  const heading = h("div", { class: "heading" }, h("h1", {}, `Audit of ${model.name}`),
    h("p", {}, "How often is the model right on real requests? Label some of its captured answers to know."));
  const element = h("section", {}, heading, h("div", { class: "audit" }, card.element, h("div", { class: "beside" }, accuracy.element, capture.element)));
  let begun = false;
  let stopped = false;

  async function refresh() {
    capture.refresh();
    const found = await getJson(`${path}/versions`, { quiet: true }).catch((error) => ({ error }));
    if (stopped) return;
    choices.hidden = !found.versions?.length;
    if (found.error) card.fail(found.error);
    else if (!found.versions.length) card.say(`${model.name} has no version yet, so it has answered nothing.`);
    else offer(found.versions);
  }

  /** Offer the versions, the newest first. The chosen one stays; the first choice is the live version. */
  function offer(versions) {
    const chosen = version.value || String((versions.find((one) => one.live) ?? versions.at(-1)).version);
    version.replaceChildren(...[...versions].reverse().map((one) => h("option", { value: one.version }, one.live ? `${one.version}, live` : String(one.version))));
    version.value = chosen;
    if (begun) accuracy.refresh();
    else begin();
  }

  function begin() {
    begun = true;
    help.textContent = `${ORDERS[order.selectedIndex][2]} ${BLIND}`;
    accuracy.about(version.value);
    card.label(auditList(model, { version: version.value, order: order.value }));
  }

  /** Say why there is nothing to label. */
  async function atEnd(skipped) {
    const settings = await capture.refresh();
    if (skipped) return `Version ${version.value} has no other captured answer without a label than the ${skipped} that you skipped.`;
    if (settings?.examples) return `Version ${version.value} has no captured answer without a label.`;
    if (settings && settings.rate === 0) return "Nothing is captured yet: choose a rate in the settings of the capture.";
    return `No answer is captured yet. Those to requests to /predict/${model.name} appear here within a second.`;
  }

  return {
    element,
    refresh,
    stop() {
      stopped = true;
      card.stop();
      accuracy.stop();
    },
  };
}
