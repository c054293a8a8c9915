// Answers and truths in words, as captures and feedback have them: by output, "" for one without a name.

import { figure, percent, words } from "./format.js";
import { isSame } from "./truth.js";

/** {"": {label: 7, probability: 0.98}} -> "7 (98.0 %)". */
export function saidText(said) {
  return Object.entries(said ?? {}).map(([name, part]) => `${name ? `${words(name)} ` : ""}${partText(part)}`).join(", ") || "something that has no label";
}

/** 7 -> "7"; {kind: "cat"} -> "kind cat". */
export function truthText(truth) {
  if (!isObject(truth)) return typeof truth === "number" ? figure(truth) : String(truth);
  return Object.entries(truth).map(([name, one]) => `${words(name)} ${truthText(one)}`).join(", ");
}

/** Compare an answer with its truth: "right", "wrong", "off by 0.5", or "" if they have nothing to compare. */
export function verdict(said, truth) {
  const parts = Object.entries(said ?? {});
  const pairs = isObject(truth) ? parts.filter(([name]) => name in truth).map(([name, part]) => [part, truth[name]])
    : parts.length === 1 ? [[parts[0][1], truth]] : [];
  const labels = pairs.filter(([part]) => "label" in part);
  if (labels.length) return labels.every(([part, told]) => isSame(part.label, told)) ? "right" : "wrong";
  const errors = pairs.filter(([part, told]) => "value" in part && typeof told === "number").map(([part, told]) => Math.abs(part.value - told));
  return errors.length ? `off by ${figure(errors.reduce((a, b) => a + b, 0) / errors.length)}` : "";
}

function partText({ label, probability, value }) {
  if (label === undefined) return figure(value);
  return probability === undefined ? String(label) : `${label} (${percent(probability)})`;
}

function isObject(truth) {
  return typeof truth === "object" && truth !== null && !Array.isArray(truth);
}
