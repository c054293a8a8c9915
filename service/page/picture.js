// Picture input: a drawing made with a mouse or a finger, or a file.

import { debounced, exampleOf, postBody, predict } from "./api.js";
import { answerPanel } from "./answer.js";
import { colour, h, onScheme } from "./dom.js";
import { explainPanel } from "./explain.js";
import { drawGrid, imageOf } from "./grid.js";

const SIZE = 448; // pixels of the drawing pad; CSS scales it
const SENT = 112; // pixels of the picture that is sent: enough for 28x28, and fast to normalise
const PEN = 0.075; // line width, as a fraction of the pad's side

export function pictureInput(model) {
  const canvas = h("canvas", { id: "pad", width: SIZE, height: SIZE, role: "img", "aria-label": "Drawing pad" });
  const seen = h("canvas", { id: "seen", width: 28, height: 28, role: "img", "aria-label": "Network input" });
  const seenFigure = h("figure", { class: "seen" }, seen, h("figcaption", {}, "Network input"));
  const file = h("input", { id: "file", type: "file", accept: "image/*", class: "visually-hidden" });
  const example = h("button", { type: "button" }, "Example");
  const clear = h("button", { type: "button" }, "Clear");
  const pad = h("div", { class: "pad" }, canvas, h("p", { class: "hint" }, "Draw here, or drop a picture"));
  const answer = answerPanel("Draw something");
  const why = explainPanel(model, { first: "integrated_gradients" }); // a plain gradient of a picture looks like noise
  let strokes = [];
  let picture = null; // {bitmap} of a file or the example, shown instead of strokes
  let current = null; // function that makes the last request, to repeat it

  const ask = debounced(async (makeBody) => {
    current = makeBody;
    try {
      const { body, type } = await makeBody();
      const [given, sample] = await Promise.all([predict(model.name, body, type), preview(model.name, body, type)]);
      if (current !== makeBody || pad.classList.contains("blank")) return; // cleared meanwhile
      answer.show(given.predictions[0], given);
      drawSeen(sample);
      why.about(body, type);
    } catch (error) {
      if (!pad.classList.contains("blank")) fail(error);
    }
  });

  function fail(error) {
    answer.fail(error);
    drawSeen(null);
    why.clear();
  }

  function drawSeen(sample) {
    seenFigure.classList.toggle("nothing", !sample);
    if (sample) drawGrid(seen, sample.length === 1 ? sample[0] : sample);
  }

  function redraw() {
    const context = canvas.getContext("2d");
    paint(context, SIZE, strokes, colour("--ink"), colour("--paper"));
    if (picture?.bitmap) {
      const { width, height } = picture.bitmap;
      const scale = SIZE / Math.max(width, height);
      context.imageSmoothingEnabled = scale < 4;
      context.drawImage(picture.bitmap, (SIZE - width * scale) / 2, (SIZE - height * scale) / 2, width * scale, height * scale);
    }
    pad.classList.toggle("blank", strokes.length === 0 && !picture);
  }

  function wipe() {
    strokes = [];
    picture = null;
    redraw();
    drawSeen(null);
    why.clear();
    answer.clear();
  }

  async function take(chosen) {
    if (!chosen) return;
    wipe();
    picture = { bitmap: await createImageBitmap(chosen).catch(() => null) };
    redraw();
    ask(async () => ({ body: chosen, type: chosen.type.startsWith("image/") ? chosen.type : "application/octet-stream" }));
  }

  async function takeExample() {
    wipe();
    const body = await exampleOf(model).catch(fail);
    if (!body) return;
    const rows = body.inputs[0];
    picture = { bitmap: await createImageBitmap(imageOf(rows)) };
    redraw();
    ask(async () => ({ body: { inputs: [rows] }, type: "application/json" }));
  }

  listen(canvas, {
    begin(point) {
      if (picture) wipe();
      strokes.push([point]);
      redraw();
    },
    go(points) {
      strokes.at(-1)?.push(...points);
      redraw();
      const drawn = strokes.map((stroke) => [...stroke]);
      ask(() => pictureOf(drawn));
    },
  });
  file.addEventListener("change", () => take(file.files[0]).then(() => (file.value = "")));
  clear.addEventListener("click", wipe);
  example.addEventListener("click", takeExample);
  pad.addEventListener("dragover", (event) => event.preventDefault());
  pad.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  const endScheme = onScheme(redraw);
  wipe();

  const buttons = h("div", { class: "buttons" }, clear, file, h("label", { for: "file", class: "button" }, "Choose a picture"), example);
  const element = h("div", { class: "ask" }, h("div", { class: "input" }, pad, buttons), h("div", { class: "output" }, answer.element, seenFigure, why.element));
  return { element, stop: endScheme, refresh: () => current && !pad.classList.contains("blank") && ask(current) };
}

/** Return the network's input for the first sample of the body. Throws Problem. */
async function preview(model, body, type) {
  return (await postBody(`preview/${model}`, body, type)).samples[0];
}

/** Encode the strokes as a PNG, dark on white in any colour scheme. */
function pictureOf(strokes) {
  const canvas = h("canvas", { width: SENT, height: SENT });
  paint(canvas.getContext("2d"), SENT, strokes, "#000", "#fff");
  return new Promise((resolve) => canvas.toBlob((body) => resolve({ body, type: "image/png" }), "image/png"));
}

function paint(context, size, strokes, ink, paper) {
  context.fillStyle = paper;
  context.fillRect(0, 0, size, size);
  Object.assign(context, { strokeStyle: ink, lineWidth: size * PEN, lineCap: "round", lineJoin: "round" });
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(stroke[0][0] * size, stroke[0][1] * size);
    for (const [x, y] of stroke) context.lineTo(x * size, y * size);
    context.stroke();
  }
}

/** Call `begin(point)` and `go(points)` while the pointer is down, with positions as fractions of the canvas. */
function listen(canvas, { begin, go }) {
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  let pointer = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button !== 0) return;
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    begin(place(event));
    go([place(event)]);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId === pointer) go((event.getCoalescedEvents?.() ?? [event]).map(place));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      if (event.pointerId === pointer) pointer = null;
    });
  }
}
