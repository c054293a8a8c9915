// Show one output: probabilities as bars with labels, a picture as a picture, numbers as numbers.

import { h } from "./dom.js";
import { figure, percent, words } from "./format.js";
import { drawGrid, rowsOf } from "./grid.js";

const FEW = 16; // numbers that are shown in a line
const LEAST = 160; // pixels: smaller pictures are enlarged
const LONGEST = 4000; // characters

/** Create a list of bars with `draw(shares, labels, best)`; `labels`: null for the positions, `best`: one of them. */
export function barList() {
  const element = h("ol", { class: "bars" });
  function draw(shares, labels, best) {
    if (element.children.length !== shares.length) {
      element.replaceChildren(...shares.map(() => h("li", {},
        h("span", { class: "name" }), h("span", { class: "track" }, h("span", { class: "bar" })), h("span", { class: "share" }))));
    }
    element.classList.toggle("labelled", labels !== null);
    shares.forEach((share, at) => {
      const row = element.children[at];
      row.classList.toggle("best", at === best || (labels !== null && labels[at] === best));
      row.querySelector(".name").textContent = labels?.[at] ?? at;
      row.querySelector(".bar").style.width = `${share * 100}%`;
      row.querySelector(".share").textContent = percent(share);
    });
  }
  return { element, draw, clear: () => element.replaceChildren() };
}

/** Return a titled block with the value of one output; `output`: its entry in the signature, if it has one. */
export function outputBlock(name, value, output) {
  return h("section", { class: "block", "aria-label": name }, h("h3", {}, words(name)), shown(name, value, output));
}

function shown(name, value, output) {
  if (output?.picture && Array.isArray(value)) return picture(name, value);
  if (!Array.isArray(value)) return typeof value === "object" && value !== null ? code(value) : h("p", { class: "value" }, figure(value));
  if (output?.labels?.length === value.length && !Array.isArray(value[0])) return labelled(value, output.labels);
  if (value.length <= FEW && !value.some(Array.isArray)) return h("p", { class: "value list" }, value.map(figure).join(", "));
  return code(value);
}

function picture(name, value) {
  const canvas = h("canvas", { class: "picture", role: "img", "aria-label": `The picture ${name}` });
  drawGrid(canvas, rowsOf(value, { bytes: true }));
  canvas.style.width = `${canvas.width < LEAST ? LEAST : canvas.width}px`;
  canvas.classList.toggle("enlarged", canvas.width < LEAST);
  return canvas;
}

/** Shares of a whole as bars, other numbers as a list. */
function labelled(values, labels) {
  const best = labels[values.indexOf(Math.max(...values))];
  if (values.every((value) => value >= 0 && value <= 1)) {
    const bars = barList();
    bars.draw(values, labels, best);
    return bars.element;
  }
  return h("dl", { class: "figures" }, values.flatMap((value, at) => [h("dt", {}, labels[at]), h("dd", {}, figure(value))]));
}

function code(value) {
  const text = JSON.stringify(value);
  return h("pre", { tabindex: "0" }, text.length > LONGEST ? `${text.slice(0, LONGEST)} …` : text);
}
