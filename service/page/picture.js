// Picture input: a drawing made with a mouse or a finger, or a file.

import { exampleOf, postBody, predict, throttled } from "./api.js";
import { answerPanel } from "./answer.js";
import { h } from "./dom.js";
import { explainPanel } from "./explain.js";
import { drawGrid, imageOf, rowsOf } from "./grid.js";
import { picturePad } from "./pad.js";

const PAUSE_MS = 15; // between two requests while a stroke is drawn

export function pictureInput(model) {
  const seen = h("canvas", { id: "seen", width: 28, height: 28, role: "img", "aria-label": "Network input" });
  const seenFigure = h("figure", { class: "seen" }, seen, h("figcaption", {}, "Network input"));
  const example = h("button", { type: "button" }, "Example");
  const answer = answerPanel("Draw something", model);
  const why = explainPanel(model, { first: "integrated_gradients" }); // a plain gradient of a picture looks like noise
  const bytes = model.signature.inputs[0].dtype === "uint8";
  let current = null; // function that makes the last request, to repeat it

  const ask = throttled(async (makeBody) => {
    current = makeBody;
    try {
      const { body, type } = await makeBody();
      const given = await predict(model.name, body, type);
      if (isOutdated(makeBody)) return;
      answer.show(given.predictions[0], given);
      why.about(body, type);
      look(makeBody, body, type);
    } catch (error) {
      if (!pad.isBlank()) fail(error);
    }
  }, PAUSE_MS);
  const look = throttled(async (makeBody, body, type) => {
    const sample = await preview(model.name, body, type).catch(() => null);
    if (!isOutdated(makeBody)) drawSeen(sample);
  });
  const pad = picturePad({
    changed: ask,
    wiped() {
      drawSeen(null);
      why.clear();
      answer.clear();
    },
  });

  /** Whether the pad was cleared or changed since `makeBody` was its body. */
  function isOutdated(makeBody) {
    return current !== makeBody || pad.isBlank();
  }

  function fail(error) {
    answer.fail(error);
    drawSeen(null);
    why.clear();
  }

  function drawSeen(sample) {
    seenFigure.classList.toggle("nothing", !sample);
    if (sample) drawGrid(seen, rowsOf(sample));
  }

  async function takeExample() {
    pad.wipe();
    const body = await exampleOf(model).catch(fail);
    if (!body) return;
    const sample = body.inputs[0];
    const bitmap = await createImageBitmap(imageOf(rowsOf(sample, { bytes })));
    pad.put(bitmap, async () => ({ body: { inputs: [sample] }, type: "application/json" }));
  }

  example.addEventListener("click", takeExample);
  const buttons = h("div", { class: "buttons" }, pad.buttons, example);
  const element = h("div", { class: "ask" }, h("div", { class: "input" }, pad.element, buttons), h("div", { class: "output" }, answer.element, seenFigure, why.element));
  return { element, stop: pad.stop, refresh: () => current && !pad.isBlank() && ask(current) };
}

/** Return the network's input for the first sample of the body. Throws Problem. */
async function preview(model, body, type) {
  return (await postBody(`preview/${model}`, body, type)).samples[0];
}
