// The capture of a model: what is kept of its requests, in words, and its settings.

import { getJson, putJson } from "./api.js";
import { grouped } from "./counts.js";
import { notify } from "./dialogs.js";
import { h } from "./dom.js";
import { schemaForm } from "./form.js";
import { bytes, lasting, percent } from "./format.js";

const DAY_S = 86_400;

/** Create a card with `refresh()`, which resolves to the settings, or null; `changed()` is called after each change. */
export function captureCard(model, changed) {
  const path = `models/${encodeURIComponent(model.name)}/capture`;
  const chip = h("span", { class: "chip" });
  const said = h("div", {});
  const trouble = h("p", { class: "trouble", role: "alert" });
  const place = h("div", {});
  const details = h("details", { class: "config" }, h("summary", {}, "Change the settings"), place);
  const element = h("section", { class: "card", "aria-labelledby": "capture-title" },
    h("h2", { id: "capture-title" }, "Capture ", chip), said, details);
  let settings = null;
  let fields = null;

  async function refresh() {
    const found = await getJson(path, { quiet: true }).catch((error) => ({ error }));
    details.hidden = Boolean(found.error);
    if (found.error) said.replaceChildren(h("p", {}, found.error.message));
    else show(found);
    return found.error ? null : found;
  }

  function show(found) {
    const before = settings;
    settings = found;
    chip.textContent = found.rate > 0 ? "on" : "off";
    chip.dataset.state = found.rate > 0 ? "live" : "";
    said.replaceChildren(...sentences(found));
    if (!details.open || !before) draw();
  }

  /** Draw the form anew, with the present settings as its defaults. */
  function draw() {
    fields = schemaForm({ properties: propertiesOf(settings) }, "capture");
    place.replaceChildren(h("form", { on: { submit: save } }, fields.element, trouble, h("p", { class: "buttons" }, h("button", { class: "main" }, "Save"),
      h("button", { type: "button", on: { click: () => (details.open = false) } }, "Cancel"))));
  }

  async function save(event) {
    event.preventDefault();
    trouble.textContent = "";
    try {
      const { rate, max_examples, max_bytes, days, originals } = await getJson(path); // another client may have changed them
      const found = await putJson(path, { rate, max_examples, max_bytes, days, originals, ...fields.read() });
      details.open = false;
      show(found);
      notify(found.rate > 0 ? `${share(found.rate)} requests of ${model.name} are captured from now on.` : `No request of ${model.name} is captured from now on.`);
      changed();
    } catch (error) {
      trouble.textContent = error.message;
    }
  }

  details.addEventListener("toggle", () => details.open || !settings || draw());
  return { element, refresh };
}

function sentences({ rate, max_examples: most, max_bytes: size, days, originals, examples, bytes: held }) {
  const on = rate > 0;
  const first = on ? `${share(rate)} requests are kept: each sample as the model reads it, its answer, version and media type, and the X-Prediction-Key that the caller may send. Addresses, other headers and API keys are not.`
    : "Nothing is kept of requests, so there is nothing to label and to learn from but what was captured before.";
  const files = originals ? " Picture files are kept as they came, with the place and time that a photo may name." : " Picture files are not kept as they came.";
  const ends = `A sample goes after ${lasting(days * DAY_S)}, or above ${grouped(most)} samples or ${bytes(size)}: the oldest first, unlabelled ones before others.`;
  return [
    h("p", {}, first, on && files),
    h("p", { class: "help" }, on && "Requests with the header X-Capture: no are never kept. ", (on || examples > 0) && `${ends} `, `Held now: ${grouped(examples)} samples, ${bytes(held)}.`),
  ];
}

/** 1 -> "All", 0.05 -> "5.0 % of the". */
function share(rate) {
  return rate === 1 ? "All" : `${percent(rate)} of the`;
}

function propertiesOf({ rate, max_examples: most, max_bytes: size, days, originals }) {
  return {
    rate: { type: "number", minimum: 0, maximum: 1, default: rate, description: "share of the requests; 0 captures none, 0.05 one in twenty" },
    days: { type: "number", exclusiveMinimum: 0, maximum: 36_500, default: days, description: "after which a sample goes" },
    max_examples: { type: "integer", minimum: 1, default: most, description: "samples that are kept" },
    max_bytes: { type: "integer", minimum: 1, default: size, description: "their size in all" },
    originals: { type: "boolean", default: originals, description: "also keep picture files as they came" },
  };
}
