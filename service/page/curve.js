// Input for a model that maps one number to one number: its curve, and a slider for the input.

import { predict, throttled } from "./api.js";
import { answerPanel } from "./answer.js";
import { h } from "./dom.js";
import { explainPanel } from "./explain.js";
import { figure } from "./format.js";
import { linePlot } from "./plot.js";
import { inputRange } from "./range.js";

const POINTS = 201;
const TANGENT = 0.1; // half the length of the tangent, as a fraction of the range

export function curveInput(model) {
  const half = inputRange(model.example.inputs);
  const slider = h("input", { id: "x", type: "range", min: -half, max: half, step: half / 100, value: model.example.inputs[0][0] });
  const from = h("input", { id: "from", type: "number", step: "any", value: -half });
  const to = h("input", { id: "to", type: "number", step: "any", value: half });
  const shown = h("output", { for: "x" });
  const answer = answerPanel("Move the slider", model);
  const plot = linePlot({ label: "Predictions", xLabel: "input", height: 300, pick: (x) => {
    slider.value = x;
    ask();
  } });
  let curve = [];
  let mark = null; // [input, answer]
  const why = explainPanel(model, { names: ["the input"], explained: drawTangent });

  const askCurve = throttled(async () => {
    const [low, high] = [Number(from.value), Number(to.value)];
    if (!(high > low)) return;
    Object.assign(slider, { min: low, max: high, step: Number(((high - low) / 300).toPrecision(12)) });
    const inputs = Array.from({ length: POINTS }, (_, at) => [low + ((high - low) * at) / (POINTS - 1)]);
    try {
      const { predictions } = await predict(model.name, { inputs });
      curve = predictions.map((one, at) => [inputs[at][0], one.value ?? NaN]);
      ask();
    } catch (error) {
      answer.fail(error);
    }
  });

  const ask = throttled(async () => {
    const x = Number(slider.value);
    shown.textContent = figure(x);
    try {
      const given = await predict(model.name, { inputs: [[x]] });
      answer.show(given.predictions[0], given);
      mark = [x, given.predictions[0].value];
      drawTangent(null);
      why.about({ inputs: [[x]] });
    } catch (error) {
      why.clear();
      answer.fail(error);
    }
  }, 20);

  /** Draw the curve, and the explained gradient as a short tangent at the marked point. */
  function drawTangent(explanation) {
    const [slope] = explanation?.gradient ?? [];
    const half = (Number(slider.max) - Number(slider.min)) * TANGENT;
    const ends = slope === undefined ? [] : [-half, half].map((by) => [mark[0] + by, mark[1] + by * slope]);
    plot.update([{ name: "answer", points: curve }, ...(ends.length ? [{ name: "slope", points: ends }] : [])], mark);
  }

  slider.addEventListener("input", ask);
  for (const end of [from, to]) end.addEventListener("change", askCurve);
  const controls = h("div", { class: "controls" },
    h("p", { class: "slide" }, h("label", { for: "x" }, "Input ", shown), slider),
    h("p", {}, h("label", { for: "from" }, "from"), from), h("p", {}, h("label", { for: "to" }, "to"), to));
  const element = h("div", { class: "ask broad" }, h("div", { class: "input" }, plot.element, controls), h("div", { class: "output" }, answer.element, why.element));
  return { element, stop: plot.stop, refresh: askCurve };
}
