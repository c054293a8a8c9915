// Input for a classifier of two numbers: its decision regions in colour, and a point that the user can move.

import { predict, throttled } from "./api.js";
import { answerPanel } from "./answer.js";
import { colour, h, onScheme } from "./dom.js";
import { explainPanel } from "./explain.js";
import { figure } from "./format.js";
import { inputRange } from "./range.js";

const CELLS = 80; // per side: one request of 6,400 points
const NAMES = ["x", "y"];
const CLASSES = 6; // colours --class-0 ... --class-5

export function fieldInput(model) {
  const half = inputRange(model.example.inputs);
  const point = [...model.example.inputs[0]];
  const canvas = h("canvas", { id: "field", width: CELLS, height: CELLS, tabindex: "0", role: "application",
    "aria-label": "Decision regions: the arrow keys move the point" });
  const pin = h("span", { class: "pin" });
  const numbers = ["first", "second"].map((name) => h("input", { id: `${name}-number`, type: "number", step: "any" }));
  const legend = h("p", { class: "legend" });
  const answer = answerPanel("Click a point", model);
  const why = explainPanel(model, { names: NAMES });
  let rows = [];

  const askField = throttled(async () => {
    const centre = (at) => half * ((2 * (at + 0.5)) / CELLS - 1);
    const inputs = Array.from({ length: CELLS * CELLS }, (_, at) => [centre(at % CELLS), -centre(Math.floor(at / CELLS))]);
    try {
      rows = (await predict(model.name, { inputs })).predictions.map((one) => one.probabilities ?? []);
      draw();
      ask();
    } catch (error) {
      answer.fail(error);
    }
  });

  const ask = throttled(async () => {
    try {
      const body = { inputs: [[...point]] };
      const given = await predict(model.name, body);
      answer.show(given.predictions[0], given);
      why.about(body);
    } catch (error) {
      why.clear();
      answer.fail(error);
    }
  }, 20);

  function draw() {
    if (!rows.length) return;
    const paper = rgb(colour("--field"));
    const classes = Array.from({ length: CLASSES }, (_, at) => rgb(colour(`--class-${at}`)));
    const image = new ImageData(CELLS, CELLS);
    rows.forEach((row, at) => image.data.set([...blended(row, classes, paper), 255], at * 4));
    canvas.getContext("2d").putImageData(image, 0, 0);
    legend.replaceChildren(...rows[0].map((_, at) => h("span", { class: `key class-${at % CLASSES}` }, `label ${at}`)));
  }

  function move(x, y) {
    point[0] = Math.min(half, Math.max(-half, x));
    point[1] = Math.min(half, Math.max(-half, y));
    numbers.forEach((number, at) => (number.value = figure(point[at])));
    pin.style.left = `${(point[0] / half + 1) * 50}%`;
    pin.style.top = `${(1 - point[1] / half) * 50}%`;
    ask();
  }

  function toPointer(event) {
    if (event.buttons !== 1) return;
    const box = canvas.getBoundingClientRect();
    move(((event.clientX - box.left) / box.width) * 2 * half - half, half - ((event.clientY - box.top) / box.height) * 2 * half);
  }

  canvas.addEventListener("pointerdown", toPointer);
  canvas.addEventListener("pointermove", toPointer);
  canvas.addEventListener("keydown", (event) => {
    const step = half / 40;
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
    if (!by) return;
    event.preventDefault();
    move(point[0] + by[0], point[1] + by[1]);
  });
  for (const number of numbers) {
    number.addEventListener("change", () => move(...numbers.map((one) => Number(one.value) || 0)));
  }
  const endScheme = onScheme(draw);
  move(...point);

  const controls = h("div", { class: "controls" }, numbers.map((number, at) =>
    h("p", {}, h("label", { for: number.id }, NAMES[at]), number)), legend);
  const plane = h("div", { class: "plane" }, canvas, pin,
    h("span", { class: "corner low" }, figure(-half)), h("span", { class: "corner high" }, figure(half)));
  const element = h("div", { class: "ask" }, h("div", { class: "input" }, plane, controls), h("div", { class: "output" }, answer.element, why.element));
  return { element, stop: endScheme, refresh: askField };
}

/** Return the colour of the most probable class; lower probabilities are closer to the background. */
function blended(row, classes, paper) {
  const best = row.indexOf(Math.max(...row));
  const confidence = row.length > 1 ? (row[best] - 1 / row.length) / (1 - 1 / row.length) : 1;
  return paper.map((level, at) => level + (classes[best % classes.length][at] - level) * (0.12 + 0.78 * confidence));
}

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}
