// Input for any other model: an editable JSON body, and the response.

import { exampleOf, predict } from "./api.js";
import { answerPanel } from "./answer.js";
import { h } from "./dom.js";
import { explainPanel } from "./explain.js";

export function jsonInput(model) {
  const box = h("textarea", { id: "body", rows: 12, spellcheck: "false" });
  const output = h("pre", { tabindex: "0", "aria-label": "Predictions" });
  const answer = answerPanel("Send the example, or edit it first", model);
  const why = explainPanel(model);
  const write = ({ inputs }) => {
    const samples = inputs.map((one) => JSON.stringify(one)); // one line each
    box.value = `{"inputs": [\n  ${samples.join(",\n  ")}\n]}`;
  };
  if (model.example) write(model.example);
  else exampleOf(model).then(write, (error) => answer.fail(error));

  async function ask(event) {
    event?.preventDefault();
    try {
      const body = JSON.parse(box.value);
      const given = await predict(model.name, body);
      answer.show(given.predictions[0], given);
      output.textContent = JSON.stringify(given.predictions, null, 1);
      why.about(body);
    } catch (error) {
      output.textContent = "";
      why.clear();
      answer.fail(error instanceof SyntaxError ? new Error(`This is not valid JSON: ${error.message}`) : error);
    }
  }

  const form = h("form", { class: "input", on: { submit: ask } }, h("label", { for: "body" }, "Body"), box,
    h("p", { class: "buttons" }, h("button", { class: "main" }, "Predict")));
  return { element: h("div", { class: "ask" }, form, h("div", { class: "output" }, answer.element, output, why.element)) };
}
