// The Predict section: selects the input for a model from its media types, example and prediction.

import { getJson } from "./api.js";
import { curveInput } from "./curve.js";
import { trying } from "./dialogs.js";
import { h } from "./dom.js";
import { fieldInput } from "./field.js";
import { jsonInput } from "./json.js";
import { namedInput } from "./named.js";
import { pictureInput } from "./picture.js";
import { namedInputs } from "./signature.js";

/** Return the input for a model: fields of named inputs, picture, curve with slider, decision field, or JSON. */
function inputFor(model) {
  if (namedInputs(model).length) return formOrJson;
  const width = vectorWidth(model.body_schema);
  const answers = Object.keys(model.prediction_schema.properties ?? {});
  if (model.media_types.includes("image/png")) return pictureInput;
  if (width === 1 && answers.includes("value")) return curveInput;
  if (width === 2 && answers.includes("probabilities")) return fieldInput;
  return jsonInput;
}

/** The fields of named inputs, or the JSON of a body, as the user chooses. */
function formOrJson(model) {
  const kinds = { Form: namedInput, JSON: jsonInput };
  const made = {};
  const place = h("div");
  const buttons = Object.keys(kinds).map((name) => h("button", { type: "button", class: "small", on: { click: () => choose(name) } }, name));

  function choose(name) {
    made[name] ??= kinds[name](model);
    place.replaceChildren(made[name].element);
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.textContent === name)));
  }

  choose("Form");
  const all = (method) => () => Object.values(made).forEach((one) => one[method]?.());
  return { element: h("div", {}, h("p", { class: "switch", role: "group", "aria-label": "Way to write a sample" }, buttons), place), stop: all("stop"), refresh: all("refresh") };
}

/** Return n if a sample is a list of n numbers, else null. */
function vectorWidth(schema) {
  const entry = schema.properties?.inputs?.items;
  return entry?.type === "array" && entry.items?.type === "number" ? entry.maxItems : null;
}

export function predictView({ model }) {
  const element = h("section", {}, h("div", { class: "heading" }, h("h1", {}, `Predict with ${model.name}`), h("p", {}, model.summary)));
  let input = null;
  let stopped = false;
  const show = (whole) => {
    if (stopped) return;
    input = inputFor(whole)(whole);
    element.append(input.element);
  };
  if (!model.shortened) show(model);
  else trying(() => getJson(`models/${model.name}`)).then((whole) => whole && show(whole)); // with all categories and labels
  const stop = () => {
    stopped = true;
    input?.stop?.();
  };
  return { element, stop, refresh: () => input?.refresh?.() };
}
