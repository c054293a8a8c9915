// Input for a model with named inputs: a field for each, and the errors of the service next to their fields.

import { exampleOf, predict } from "./api.js";
import { answerPanel } from "./answer.js";
import { h } from "./dom.js";
import { explainPanel } from "./explain.js";
import { boundsOf } from "./form.js";
import { words } from "./format.js";
import { picturePad } from "./pad.js";
import { inputOf, namedInputs } from "./signature.js";

const LARGE = 1e9; // larger bounds are not shown
const DRAWING = [112, 448]; // least and most pixels of the side of a drawing that is sent
const CONTROLS = { number, category, text, tensor, picture };

export function namedInput(model) {
  const inputs = namedInputs(model);
  const fields = inputs.map(fieldOf);
  const answer = answerPanel("Fill in the form", model);
  const why = explainPanel(model);
  const button = h("button", { class: "main" }, "Predict");
  const example = h("button", { type: "button", on: { click: () => exampleOf(model).then(fill, answer.fail) } }, "Example");
  let asked = null; // the sample of the displayed answer

  function fill({ inputs: [sample] }) {
    const values = typeof sample === "string" ? { [inputs[0].name]: sample } : sample;
    fields.forEach((field) => field.write(values[field.name] ?? null));
    clearErrors();
  }

  function clearErrors() {
    fields.forEach((field) => field.fail(""));
  }

  async function submit(event) {
    event.preventDefault();
    clearErrors();
    try {
      const sample = {};
      for (const field of fields) sample[field.name] = await field.read();
      asked = sample;
    } catch (error) {
      fail(error);
      return;
    }
    await ask();
  }

  async function ask() {
    try {
      const given = await predict(model.name, { inputs: [asked] });
      const [prediction] = given.predictions;
      if (prediction.error) {
        fail(prediction.error);
        return;
      }
      answer.show(prediction, given);
      why.about({ inputs: [asked] });
    } catch (error) {
      fail(error);
    }
  }

  /** Show an error next to the field that it names, or else as the answer. */
  function fail(error) {
    const found = inputOf(error.detail, inputs);
    const field = fields.find((one) => one.name === found?.[0]);
    field?.fail(`${error.title}: ${found[1]}`);
    field?.focus();
    answer.fail(new Error(field ? "" : error.message ?? `${error.title}: ${error.detail}`));
    why.clear();
    asked = null;
  }

  if (model.example) fill(model.example);
  const form = h("form", { class: "input named", on: { submit } }, fields.map((field) => field.element),
    h("p", { class: "buttons" }, button, example));
  const element = h("div", { class: "ask" }, form, h("div", { class: "output" }, answer.element, why.element));
  return { element, stop: () => fields.forEach((field) => field.stop?.()), refresh: () => asked && ask() };
}

/** An invalid value of one input, as the service words its errors. */
function refused(name, title, text) {
  return Object.assign(new Error(`${title}: ${name}: ${text}`), { title, detail: `${name}: ${text}` });
}

function fieldOf(input) {
  const id = `input-${input.name}`;
  const control = CONTROLS[input.kind](id, input);
  const trouble = h("p", { class: "trouble", id: `${id}-trouble`, role: "alert" });
  const help = [control.help, input.required ? null : "optional"].filter(Boolean).join("; ");
  control.first.setAttribute("aria-describedby", `${id}-trouble ${id}-help`);
  const element = h("div", { class: "field" }, h("label", { for: control.first.id }, words(input.name)), control.element,
    h("small", { id: `${id}-help`, class: "help" }, help, control.counter ?? null), trouble);
  return {
    ...control,
    name: input.name,
    element,
    focus: () => control.first.focus(),
    fail(said) {
      trouble.textContent = said;
      control.first.setAttribute("aria-invalid", String(said !== ""));
    },
  };
}

/** Describe the default of an optional input. */
function standardOf({ required, default: standard }) {
  if (required) return null;
  return standard === null ? "default: missing" : `default: ${typeof standard === "object" ? JSON.stringify(standard) : standard}`;
}

function bounds({ low, high }) {
  const small = (bound) => (bound !== null && Math.abs(bound) < LARGE ? bound : undefined);
  return { minimum: small(low), maximum: small(high) };
}

function number(id, input) {
  const { minimum, maximum } = bounds(input);
  const first = h("input", { id, type: "number", step: "any", inputmode: "decimal", required: input.required,
    placeholder: standardOf(input), min: minimum, max: maximum });
  return { first, element: first, help: boundsOf({ minimum, maximum }),
    read: () => (first.value === "" ? null : first.valueAsNumber), write: (value) => (first.value = value ?? "") };
}

function category(id, input) {
  const none = input.required ? [] : [h("option", { value: "" }, `(${standardOf(input)})`)];
  const first = h("select", { id }, none, input.values.map((value, at) => h("option", { value: at }, String(value))));
  return { first, element: first, read: () => (first.value === "" ? null : input.values[Number(first.value)]),
    write: (value) => (first.value = value === null ? (input.required ? 0 : "") : input.values.indexOf(value)) };
}

function text(id, input) {
  const first = h("textarea", { id, rows: 3, class: "words", placeholder: standardOf(input) });
  const counter = h("span", { class: "counter" });
  const count = () => {
    const length = [...first.value].length;
    counter.textContent = `${length} of at most ${input.max_chars} characters`;
    counter.classList.toggle("over", length > input.max_chars);
    first.setCustomValidity(length > input.max_chars ? `at most ${input.max_chars} characters` : "");
  };
  first.addEventListener("input", count);
  count();
  return { first, element: first, counter, help: null,
    read: () => (first.value === "" && !input.required ? null : first.value),
    write: (value) => {
      first.value = value ?? "";
      count();
    } };
}

function tensor(id, input) {
  const first = h("textarea", { id, rows: 4, spellcheck: "false", placeholder: standardOf(input) });
  const sizes = input.shape.map((size) => size ?? "any").join(" x ");
  const kind = input.dtype.startsWith("float") ? "numbers" : input.dtype === "bool" ? "true or false" : "whole numbers";
  const help = [`JSON, ${sizes ? `${sizes} ` : ""}${kind}`, input.dtype === "bool" ? "" : boundsOf(bounds(input))].filter(Boolean).join("; ");
  function read() {
    if (!first.value.trim()) {
      if (input.required) throw refused(input.name, "Missing value", "write it as JSON, such as [1, 2.5]");
      return null;
    }
    try {
      return JSON.parse(first.value);
    } catch (error) {
      throw refused(input.name, "Not valid JSON", error.message);
    }
  }
  return { first, element: first, help, read, write: (value) => (first.value = value === null ? "" : lines(value)) };
}

/** Write an array as JSON, a row of numbers on each line. */
function lines(value) {
  if (!Array.isArray(value) || !Array.isArray(value[0])) return JSON.stringify(value);
  return `[\n ${value.map((row) => JSON.stringify(row)).join(",\n ")}\n]`;
}

function picture(id, input) {
  const sent = Math.min(DRAWING[1], Math.max(DRAWING[0], ...input.shape));
  const pad = picturePad({ prefix: `${id}-`, label: `Drawing pad for ${words(input.name)}`, sent });
  const first = pad.buttons.find((one) => one.type === "file");
  async function read() {
    const made = await pad.make();
    if (!made && input.required) throw refused(input.name, "Missing picture", "draw one, or choose a file");
    return made ? dataUrl(made.body) : null;
  }
  async function write(value) {
    pad.wipe();
    if (value === null) return;
    const body = new Blob([Uint8Array.from(atob(value), (one) => one.charCodeAt(0))]);
    await pad.take(body);
  }
  const element = h("div", { class: "drawn" }, pad.element, h("div", { class: "buttons" }, pad.buttons));
  return { first, element, help: standardOf(input) && "without a picture, its default", read, write, stop: pad.stop };
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(blob);
  });
}
