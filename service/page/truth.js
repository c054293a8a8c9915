// Controls that tell the truth about an answer: a button for each label, a field for a number, fields for several outputs.

import { getJson } from "./api.js";
import { h } from "./dom.js";
import { words } from "./format.js";

const FEW = 40; // labels that are buttons, or a list; of more, one is written into a field
const MOST_KEYS = 10; // labels that are numbered

/** Load what a truth of the model is: its outputs, with their labels. */
export async function truthForm(model, options = {}) {
  return (await getJson(`models/${encodeURIComponent(model.name)}/feedback`, options)).outputs;
}

/**
 * Create controls for these outputs. `tell(truth)` is called with each truth that the user tells.
 *
 * `hint`: the keys in words, empty without keys; `press(key)`: whether a key is that of a label, which is told then;
 * `mark(truth)`: show what is told already, undefined: nothing; `allow(on)`: whether truths can be told now;
 * `focus()`: of a form, focus its first field.
 */
export function truthControl(model, outputs, tell) {
  const told = outputs.filter((one) => one.kind !== "array");
  if (!told.length) return inWords(model, outputs);
  const [only] = outputs;
  if (outputs.length === 1 && only.labels && only.labels.length <= FEW) return labelButtons(only.labels, tell);
  return fieldForm(told, outputs.length > 1, tell);
}

/** Return a key for each label: its own digit, or its first letter, or its number; "" for labels after the tenth. */
export function keysOf(labels) {
  const texts = labels.map((label) => String(label).toLowerCase());
  const differ = (keys, form) => keys.every((key) => form.test(key)) && new Set(keys).size === keys.length;
  if (differ(texts, /^[0-9]$/)) return texts;
  const letters = texts.map((text) => text.slice(0, 1));
  if (differ(letters, /^[a-z]$/)) return letters;
  return texts.map((_, at) => (at < MOST_KEYS ? String((at + 1) % 10) : ""));
}

function labelButtons(labels, tell) {
  const keys = keysOf(labels);
  const buttons = labels.map((label, at) => h("button", { type: "button", class: "label", "aria-pressed": "false", "aria-keyshortcuts": keys[at] || null,
    on: { click: () => tell(label) } }, keys[at] && keys[at] !== String(label) ? h("kbd", { "aria-hidden": "true" }, keys[at]) : null, String(label)));
  return {
    element: h("div", { class: "labels", role: "group", "aria-label": "Labels" }, buttons),
    hint: hintOf(keys),
    press(key) {
      const at = keys.indexOf(key.toLowerCase());
      if (at < 0 || buttons[at].disabled) return false;
      tell(labels[at]);
      return true;
    },
    mark: (truth) => buttons.forEach((button, at) => button.setAttribute("aria-pressed", String(truth !== undefined && isSame(labels[at], truth)))),
    allow: (on) => buttons.forEach((button) => (button.disabled = !on)),
  };
}

function hintOf(keys) {
  const used = keys.filter(Boolean);
  return used.length > 2 ? `${used[0]} … ${used.at(-1)} label it` : `${used.join(" and ")} label it`;
}

/** A field for each output. Several are told as an object, without those that are left empty. */
function fieldForm(outputs, several, tell) {
  const fields = outputs.map((one) => fieldOf(one, several));
  const save = h("button", { class: "main" }, "Save");

  function submit(event) {
    event.preventDefault();
    const filled = fields.filter((field) => !field.isEmpty());
    if (!several) tell(fields[0].read());
    else if (filled.length) tell(Object.fromEntries(filled.map((field) => [field.name, field.read()])));
    else fields[0].focus();
  }

  return {
    element: h("form", { class: "tell", on: { submit } }, fields.map((field) => field.element), save),
    hint: "Enter saves it",
    press: () => false,
    mark: (truth) => fields.forEach((field) => field.write(several ? truth?.[field.name] : truth)),
    allow: (on) => [save, ...fields.map((field) => field.first)].forEach((one) => (one.disabled = !on)),
    focus: () => fields[0].focus(),
  };
}

let made = 0; // for ids

function fieldOf({ name, kind, labels }, optional) {
  const id = `truth-${(made += 1)}`;
  const number = kind === "value";
  if (optional && labels && labels.length <= FEW) return choiceOf(id, name, labels);
  const list = labels ? h("datalist", { id: `${id}-labels` }, labels.map((label) => h("option", { value: String(label) }))) : null;
  const first = h("input", { id, type: number ? "number" : "text", step: number ? "any" : null, inputmode: number ? "decimal" : null, maxlength: number ? null : 1000,
    autocomplete: "off", list: list?.id, required: !optional, placeholder: optional ? "not told" : null });
  const title = name ? words(name) : number ? "The right value" : "The right label";
  return {
    name,
    first,
    element: h("p", {}, h("label", { for: id }, title), first, list),
    isEmpty: () => first.value === "",
    read: () => (number ? first.valueAsNumber : (labels?.find((label) => isSame(label, first.value)) ?? first.value)),
    write: (truth) => (first.value = truth ?? ""),
    focus: () => first.focus(),
  };
}

function choiceOf(id, name, labels) {
  const first = h("select", { id }, h("option", { value: "" }, "not told"), labels.map((label, at) => h("option", { value: at }, String(label))));
  return {
    name,
    first,
    element: h("p", {}, h("label", { for: id }, words(name)), first),
    isEmpty: () => first.value === "",
    read: () => labels[Number(first.value)],
    write: (truth) => (first.value = truth === undefined ? "" : labels.findIndex((label) => isSame(label, truth))),
    focus: () => first.focus(),
  };
}

/** Say how answers are labelled that the page has no controls for. */
function inWords(model, outputs) {
  const [array] = outputs;
  const shape = array?.shape.map((size) => size ?? "any").join(" x ");
  const text = array ? `The answers of ${model.name} are arrays, which this page cannot label. Send the right array ${array.name ? `of ${array.name} ` : ""}(${shape} numbers) with POST /models/${model.name}/feedback.`
    : `The answers of ${model.name} have neither labels nor values that could be compared with a truth, so they cannot be labelled.`;
  return { element: h("p", { class: "help" }, text), hint: "", press: () => false, mark() {}, allow() {} };
}

/** Whether two labels are the same, as the service compares them: by their text. */
export function isSame(one, other) {
  return String(one).trim() === String(other).trim();
}
