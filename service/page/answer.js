// Answer panel: headline, probabilities as bars, named outputs, version and time, and its correction; or an error message.

import { correctionPanel } from "./correct.js";
import { h } from "./dom.js";
import { figure, percent } from "./format.js";
import { barList, outputBlock } from "./outputs.js";
import { labelsOf, namedInputs, namedOutputs } from "./signature.js";

const IN_HEADLINE = new Set(["label", "probability", "value", "probabilities"]);
const SHORT = 5; // characters of a label in large print

/** Create a panel with `show(prediction, answer)`, `fail(error)` and `clear(text)`. `waiting`: the text without an answer. */
export function answerPanel(waiting, model) {
  const headline = h("p", { class: "headline", "aria-live": "polite" });
  const bars = barList();
  const blocks = h("div", { class: "blocks" });
  const meta = h("p", { class: "meta" });
  const trouble = h("p", { class: "trouble", role: "alert" });
  const correction = correctionPanel(model);
  const element = h("div", {}, h("section", { class: "answer", "aria-label": "Answer" }, headline, trouble, bars.element, blocks, meta), correction.element);

  function clear(text = waiting) {
    headline.hidden = false;
    headline.replaceChildren(h("span", { class: "waiting" }, text));
    trouble.textContent = "";
    meta.textContent = "";
    bars.clear();
    blocks.replaceChildren();
    correction.about(null);
  }

  function show(prediction, answer) {
    if (prediction.error) {
      fail(new Error(`${prediction.error.title}: ${prediction.error.detail}`));
      return;
    }
    trouble.textContent = "";
    headline.replaceChildren(...headlineOf(prediction));
    headline.hidden = !headline.childNodes.length;
    const shares = prediction.probabilities ?? [];
    bars.draw(shares, labelsOf(model, shares.length), prediction.label);
    blocks.replaceChildren(...blocksOf(prediction, model));
    meta.replaceChildren(...metaOf(answer));
    correction.about(answer.id);
  }

  function fail(error) {
    headline.hidden = false;
    headline.replaceChildren(h("span", { class: "waiting" }, "No answer"));
    bars.clear();
    blocks.replaceChildren();
    meta.textContent = "";
    trouble.textContent = error.message;
    correction.about(null);
  }

  clear();
  return { element, show, fail, clear };
}

function headlineOf({ label, probability, value }) {
  if (label !== undefined) {
    const share = probability === undefined ? null : h("span", {}, `${percent(probability)} probability`);
    return [h("strong", { id: "label", class: String(label).length > SHORT ? "long" : null }, String(label)), share].filter(Boolean);
  }
  return value === undefined ? [] : [h("strong", {}, figure(value))];
}

/** Return a block for each field that is not in the headline: of one-tensor models only those of named outputs. */
function blocksOf(prediction, model) {
  const outputs = new Map(namedOutputs(model).map((one) => [one.name, one]));
  const all = namedInputs(model).length > 0;
  return Object.entries(prediction)
    .filter(([name]) => !IN_HEADLINE.has(name) && (all || outputs.has(name)))
    .map(([name, value]) => outputBlock(name, value, outputs.get(name)));
}

function metaOf({ version, serverMs, roundMs }) {
  const inside = serverMs === null ? "" : `${serverMs.toFixed(2)} ms in the service · `;
  return [h("span", { class: "badge" }, `version ${version}`), ` ${inside}${roundMs.toFixed(0)} ms in total`];
}
