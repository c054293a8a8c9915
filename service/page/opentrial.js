// Dialog that opens a trial of a version: its stages, the key of a request, and the conditions.

import { postJson } from "./api.js";
import { openDialog } from "./dialogs.js";
import { h } from "./dom.js";

const DEFAULTS = [["shadow", 100, 10, 500], ["canary", 5, 10, 200], ["canary", 25, 10, 500]]; // as the service's own

/** Ask for the stages and conditions, and open the trial. Returns the trial, or null if the user cancels. */
export function askTrial(model, version, live) {
  const rows = h("ol", { class: "stage-rows" });
  for (const one of DEFAULTS) rows.append(stageRow(...one));
  const add = h("button", { type: "button", class: "small", on: { click: addStage } }, "Add a stage");
  const header = field("Header with the key, such as X-User", "tells callers apart: requests with the same value are answered by the same version", { pattern: "[A-Za-z0-9!#$%&'*+.^_`\\|~\\-]{1,100}", placeholder: "each request is its own key" });
  const agreement = field("Answered alike, at least (%)", "of the samples in a shadow", { type: "number", min: 0, max: 100, step: "any", placeholder: "not judged" });
  const latency = field("95% of the answers within (ms)", "in a canary", { type: "number", min: 0.001, max: 600000, step: "any", placeholder: "not judged" });
  const alpha = field("False alarms, at most (%)", "of candidates as good as the live version so many are rolled back all the same", { type: "number", min: 0.0001, max: 50, step: "any", value: 1, required: true });
  const accuracy = h("input", { id: "trial-accuracy", type: "checkbox" });
  const undecided = h("select", { id: "trial-undecided" }, h("option", { value: "pause" }, "pause"), h("option", { value: "roll_back" }, "roll back"));

  function addStage() {
    const row = stageRow("canary", 50, 10, 500);
    rows.append(row);
    row.querySelector("select").focus();
  }

  function order() {
    const conditions = { errors: { alpha: alpha.number() / 100 } };
    if (agreement.text()) conditions.agreement = { at_least: agreement.number() / 100 };
    if (latency.text()) conditions.latency = { p95_at_most: latency.number() };
    if (accuracy.checked) conditions.accuracy = { alpha: alpha.number() / 100 };
    return { version, stages: [...rows.children].map((row) => row.read()), key_header: header.text() || null, conditions, when_undecided: undecided.value };
  }

  const body = [
    h("p", {}, `Version ${version} proves itself beside version ${live}. In a shadow it computes live requests again, and no caller gets its answers; in a canary it answers a share of the callers. It is rolled back as soon as a condition has failed, and goes live after the last stage.`),
    h("fieldset", {}, h("legend", {}, "Stages"), h("p", { class: "help" }, "A stage takes the given share of the requests, and ends once it has lasted so long and seen so many samples."), rows, add),
    h("fieldset", { class: "fields" }, h("legend", {}, "Conditions"), alpha.element, agreement.element, latency.element, header.element,
      h("div", { class: "field check" }, accuracy, h("label", { for: accuracy.id }, "The candidate is right as often"), h("small", { class: "help" }, "judged where the answers differ and feedback tells the right one")),
      h("div", { class: "field" }, h("label", { for: undecided.id }, "If a stage ends undecided"), undecided)),
  ];
  return openDialog(`Trial of version ${version}`, body, "Open the trial", () => postJson(`models/${model.name}/trial`, order()), "broad");
}

let numbered = 0;

function field(label, help, attributes) {
  numbered += 1;
  const id = `trial-field-${numbered}`;
  const input = h("input", { id, autocomplete: "off", "aria-describedby": `${id}-help`, ...attributes });
  const element = h("div", { class: "field" }, h("label", { for: id }, label), input, h("small", { class: "help", id: `${id}-help` }, help));
  return { element, text: () => input.value.trim(), number: () => Number(input.value) };
}

/** Create a row of inputs; `read()` returns the stage. */
function stageRow(kind, percent, minutes, samples) {
  const select = h("select", { "aria-label": "Kind", on: { change: limit } }, ["shadow", "canary"].map((one) => h("option", { value: one, selected: one === kind }, one)));
  const number = (label, value, attributes) => h("input", { type: "number", "aria-label": label, required: true, value, ...attributes });
  const share = number("Share in percent", percent, { min: 0.01, step: "any" });
  const time = number("Minutes", minutes, { min: 0.001, step: "any" });
  const least = number("Samples", samples, { min: 1, step: 1 });
  const remove = h("button", { type: "button", class: "quiet", "aria-label": "Remove this stage", on: { click: leave } }, "×");
  const row = h("li", {}, select, h("span", { class: "unit" }, share, "%"), h("span", { class: "unit" }, time, "min"), h("span", { class: "unit" }, least, "samples"), remove);
  function limit() {
    share.max = select.value === "shadow" ? 100 : 50;
  }
  limit();
  /** Remove the row; the focus goes to the next one, else to the one before, else to the button that adds one. */
  function leave() {
    const rest = row.nextElementSibling ?? row.previousElementSibling;
    const target = rest?.querySelector("select") ?? row.parentElement.nextElementSibling;
    row.remove();
    target.focus();
  }
  row.read = () => ({ [select.value === "shadow" ? "shadow" : "share"]: Number(share.value) / 100, for: `PT${Number((Number(time.value) * 60).toFixed(3))}S`, samples: Number(least.value) });
  return row;
}
