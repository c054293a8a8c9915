// The Predict section: selects the input for a model from its media types, example and prediction.

import { curveInput } from "./curve.js";
import { h } from "./dom.js";
import { fieldInput } from "./field.js";
import { jsonInput } from "./json.js";
import { pictureInput } from "./picture.js";

/** Return the input for a model: picture, curve with slider, decision field, or JSON. */
function inputFor(model) {
  const width = vectorWidth(model.body_schema);
  const answers = Object.keys(model.prediction_schema.properties ?? {});
  if (model.media_types.includes("image/png")) return pictureInput;
  if (width === 1 && answers.includes("value")) return curveInput;
  if (width === 2 && answers.includes("probabilities")) return fieldInput;
  return jsonInput;
}

/** Return n if a sample is a list of n numbers, else null. */
function vectorWidth(schema) {
  const entry = schema.properties?.inputs?.items;
  return entry?.type === "array" && entry.items?.type === "number" ? entry.maxItems : null;
}

export function predictView({ model }) {
  const input = inputFor(model)(model);
  const heading = h("div", { class: "heading" }, h("h1", {}, `Predict with ${model.name}`), h("p", {}, model.summary));
  return { ...input, element: h("section", {}, heading, input.element) };
}
