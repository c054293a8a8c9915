// Answer panel: headline, probabilities as bars, version and time; or an error message.

import { h } from "./dom.js";
import { figure, percent } from "./format.js";

/** Create a panel with `show(prediction, answer)`, `fail(error)` and `clear(text)`. `waiting`: the text without an answer. */
export function answerPanel(waiting) {
  const headline = h("p", { class: "headline", "aria-live": "polite" });
  const bars = h("ol", { class: "bars" });
  const meta = h("p", { class: "meta" });
  const trouble = h("p", { class: "trouble", role: "alert" });
  const element = h("section", { class: "answer", "aria-label": "Answer" }, headline, trouble, bars, meta);

  function clear(text = waiting) {
    headline.replaceChildren(h("span", { class: "waiting" }, text));
    trouble.textContent = "";
    meta.textContent = "";
    bars.replaceChildren();
  }

  function show(prediction, answer) {
    if (prediction.error) {
      fail(new Error(`${prediction.error.title}: ${prediction.error.detail}`));
      return;
    }
    trouble.textContent = "";
    headline.replaceChildren(...headlineOf(prediction));
    drawBars(bars, prediction);
    meta.replaceChildren(...metaOf(answer));
  }

  function fail(error) {
    headline.replaceChildren(h("span", { class: "waiting" }, "No answer"));
    bars.replaceChildren();
    meta.textContent = "";
    trouble.textContent = error.message;
  }

  clear();
  return { element, show, fail, clear };
}

function headlineOf({ label, probability, value }) {
  if (label !== undefined) {
    return [h("strong", { id: "label" }, String(label)), h("span", {}, `${percent(probability)} probability`)];
  }
  return value === undefined ? [] : [h("strong", {}, figure(value))];
}

function drawBars(bars, { probabilities = [], label }) {
  if (bars.children.length !== probabilities.length) {
    bars.replaceChildren(...probabilities.map((_, at) => h("li", {},
      h("span", { class: "name" }, String(at)),
      h("span", { class: "track" }, h("span", { class: "bar" })),
      h("span", { class: "share" }))));
  }
  probabilities.forEach((share, at) => {
    const row = bars.children[at];
    row.classList.toggle("best", at === label);
    row.querySelector(".bar").style.width = `${share * 100}%`;
    row.querySelector(".share").textContent = percent(share);
  });
}

function metaOf({ version, serverMs, roundMs }) {
  const inside = serverMs === null ? "" : `${serverMs.toFixed(2)} ms in the service · `;
  return [h("span", { class: "badge" }, `version ${version}`), ` ${inside}${roundMs.toFixed(0)} ms in total`];
}
