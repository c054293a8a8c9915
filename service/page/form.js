// Build a form from a JSON schema: one labelled field per property, with default, bounds and description.

import { h } from "./dom.js";
import { words } from "./format.js";

const LARGE = 1e9; // larger bounds are not shown

/** Create the form. `read()` returns the values that differ from the defaults; `reset()` restores the defaults. */
export function schemaForm(schema, prefix) {
  const fields = Object.entries(schema.properties).map(([name, field]) => fieldOf(`${prefix}-${name}`, name, field));
  return {
    element: h("div", { class: "fields" }, fields.map((field) => field.element)),
    reset: () => fields.forEach((field) => field.reset()),
    read: () => Object.fromEntries(fields.map((field) => [field.name, field.read(), field.standard])
      .filter(([, value, standard]) => JSON.stringify(value) !== JSON.stringify(standard))
      .map(([name, value]) => [name, value])),
  };
}

function fieldOf(id, name, given) {
  const { schema, nullable } = withoutNull(given);
  const kind = controlFor(schema);
  const standard = given.default;
  const control = kind(id, schema, nullable);
  const text = [given.description, boundsOf(schema)].filter(Boolean).join("; ");
  const help = text ? h("small", { id: `${id}-help`, class: "help" }, text) : null;
  if (help) control.first.setAttribute("aria-describedby", help.id);
  const label = h("label", { for: id }, words(name));
  const check = control.first.type === "checkbox";
  const element = h("div", { class: check ? "field check" : "field" }, check ? [control.element, label] : [label, control.element], help);
  const reset = () => control.write(standard);
  reset();
  return { name, element, standard, reset, read: control.read };
}

/** Describe the bounds of a number: "1 to 100", "more than 0"; empty if there is none below LARGE. */
export function boundsOf({ minimum, maximum, exclusiveMinimum, exclusiveMaximum }) {
  const low = minimum ?? exclusiveMinimum;
  const most = maximum ?? exclusiveMaximum;
  const high = most < LARGE ? most : undefined;
  if (minimum !== undefined && maximum !== undefined && high !== undefined) return `${low} to ${high}`;
  return [
    low !== undefined && `${minimum === undefined ? "more than" : "at least"} ${low}`,
    high !== undefined && `${maximum === undefined ? "less than" : "at most"} ${high}`,
  ].filter(Boolean).join(", ");
}

/** Split anyOf [schema, null] and type [x, "null"] into the schema and whether null is allowed. */
function withoutNull(schema) {
  const options = schema.anyOf ?? schema.oneOf;
  if (options?.some((one) => one.type === "null")) {
    const others = options.filter((one) => one.type !== "null");
    return { schema: others.length === 1 ? others[0] : {}, nullable: true };
  }
  if (Array.isArray(schema.type)) {
    const [type] = schema.type.filter((one) => one !== "null");
    return { schema: { ...schema, type }, nullable: schema.type.includes("null") };
  }
  return { schema, nullable: false };
}

function controlFor(schema) {
  if (schema.enum) return choice;
  if (schema.type === "boolean") return checkbox;
  if (schema.type === "integer" || schema.type === "number") return number;
  if (schema.type === "array" && schema.prefixItems?.every((one) => one.type === "number")) return several;
  return schema.type === "string" ? text : json;
}

function choice(id, schema, nullable) {
  const empty = nullable ? [h("option", { value: "" }, "none")] : [];
  const first = h("select", { id }, empty, schema.enum.map((one, at) => h("option", { value: at }, String(one))));
  return {
    first,
    element: first,
    read: () => (first.value === "" ? null : schema.enum[Number(first.value)]),
    write: (value) => (first.value = value === null ? "" : Math.max(0, schema.enum.indexOf(value))),
  };
}

function checkbox(id) {
  const first = h("input", { id, type: "checkbox" });
  return { first, element: first, read: () => first.checked, write: (value) => (first.checked = Boolean(value)) };
}

function number(id, schema, nullable) {
  const first = h("input", { id, type: "number", inputmode: schema.type === "integer" ? "numeric" : "decimal",
    step: schema.type === "integer" ? 1 : "any", required: !nullable, placeholder: nullable ? "none" : null,
    min: schema.minimum ?? schema.exclusiveMinimum, max: schema.maximum ?? schema.exclusiveMaximum });
  const check = () => {
    const value = first.valueAsNumber; // HTML's min and max attributes are inclusive
    const low = schema.exclusiveMinimum !== undefined && value <= schema.exclusiveMinimum;
    const high = schema.exclusiveMaximum !== undefined && value >= schema.exclusiveMaximum;
    first.setCustomValidity(low ? `must be more than ${schema.exclusiveMinimum}` : high ? `must be less than ${schema.exclusiveMaximum}` : "");
  };
  first.addEventListener("input", check);
  return {
    first,
    element: first,
    read: () => (first.value === "" ? null : first.valueAsNumber),
    write: (value) => {
      first.value = value ?? "";
      check();
    },
  };
}

/** Fields for a list of fixed length, in a row. */
function several(id, schema) {
  const parts = schema.prefixItems.map((item, at) => number(at ? `${id}-${at}` : id, item, false));
  parts.forEach((part, at) => at && part.first.setAttribute("aria-label", `number ${at + 1}`));
  return {
    first: parts[0].first,
    element: h("span", { class: "several" }, parts.map((part) => part.element)),
    read: () => parts.map((part) => part.read()),
    write: (value) => parts.forEach((part, at) => part.write(value?.[at])),
  };
}

function text(id, schema, nullable) {
  const first = h("input", { id, type: "text", maxlength: schema.maxLength, minlength: schema.minLength, pattern: schema.pattern });
  return { first, element: first, read: () => (nullable && first.value === "" ? null : first.value), write: (value) => (first.value = value ?? "") };
}

function json(id) {
  const first = h("input", { id, type: "text", spellcheck: "false" });
  const read = () => (first.value === "" ? null : JSON.parse(first.value));
  first.addEventListener("input", () => {
    try {
      read();
      first.setCustomValidity("");
    } catch {
      first.setCustomValidity("must be JSON");
    }
  });
  return { first, element: first, read, write: (value) => (first.value = value === null || value === undefined ? "" : JSON.stringify(value)) };
}
