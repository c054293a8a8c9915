// Drawing pad for one picture: drawn with a mouse or a finger, dropped, or chosen as a file.

import { colour, h, onScheme } from "./dom.js";
import { greyPng } from "./png.js";

const SIZE = 448; // pixels of the pad; CSS scales it
const SENT = 112; // pixels of a drawing that is sent: enough for 28x28, and fast to normalise
const PEN = 0.075; // line width, as a fraction of the pad's side

/**
 * Create a pad. `changed(make)` is called after each change: `make()` resolves to {body, type}; `wiped()` when it
 * becomes blank. `prefix`: of the ids; `label`: of the canvas; `sent`: pixels of the side of a drawing that is sent.
 */
export function picturePad({ prefix = "", label = "Drawing pad", sent = SENT, changed = () => {}, wiped = () => {} }) {
  const canvas = h("canvas", { id: `${prefix}pad`, width: SIZE, height: SIZE, role: "img", "aria-label": label });
  const file = h("input", { id: `${prefix}file`, type: "file", accept: "image/*", class: "visually-hidden" });
  const clear = h("button", { type: "button" }, "Clear");
  const element = h("div", { class: "pad" }, canvas, h("p", { class: "hint" }, "Draw here, or drop a picture"));
  let strokes = [];
  let picture = null; // {bitmap} of a file or the example, shown instead of strokes
  let make = null; // function that makes the body; null: the pad is blank

  function redraw() {
    const context = canvas.getContext("2d");
    paint(context, SIZE, strokes, colour("--ink"), colour("--paper"));
    if (picture?.bitmap) {
      const { width, height } = picture.bitmap;
      const scale = SIZE / Math.max(width, height);
      context.imageSmoothingEnabled = scale < 4;
      context.drawImage(picture.bitmap, (SIZE - width * scale) / 2, (SIZE - height * scale) / 2, width * scale, height * scale);
    }
    element.classList.toggle("blank", strokes.length === 0 && !picture);
  }

  function wipe() {
    strokes = [];
    picture = null;
    make = null;
    redraw();
    wiped();
  }

  /** Show a bitmap; `makeBody()` resolves to the body that stands for it. */
  function put(bitmap, makeBody) {
    wipe();
    picture = { bitmap };
    change(makeBody);
  }

  function change(makeBody) {
    make = makeBody;
    redraw();
    changed(makeBody);
  }

  /** Show a file, which is sent as it is, also if the browser cannot show it. */
  async function take(chosen) {
    if (!chosen) return;
    const type = chosen.type.startsWith("image/") ? chosen.type : "application/octet-stream";
    put(null, async () => ({ body: chosen, type }));
    const mine = picture;
    mine.bitmap = await createImageBitmap(chosen).catch(() => null);
    redraw();
  }

  listen(canvas, {
    begin(point) {
      if (picture) wipe();
      strokes.push([point]);
      redraw();
    },
    go(points) {
      strokes.at(-1)?.push(...points);
      const drawn = strokes.map((stroke) => [...stroke]);
      change(() => pictureOf(drawn, sent));
    },
  });
  file.addEventListener("change", () => take(file.files[0]).then(() => (file.value = "")));
  clear.addEventListener("click", wipe);
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  const stop = onScheme(redraw);
  wipe();
  const choose = [file, h("label", { for: file.id, class: "button" }, "Choose a picture")];
  return { element, buttons: [clear, ...choose], put, take, wipe, stop, isBlank: () => element.classList.contains("blank"), make: () => make?.() ?? null };
}

/** Encode the strokes as a PNG, dark on white in any colour scheme. */
async function pictureOf(strokes, size) {
  const canvas = h("canvas", { width: size, height: size });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  paint(context, size, strokes, "#000", "#fff");
  const { data } = context.getImageData(0, 0, size, size); // red, green, blue and opacity of each pixel
  return { body: greyPng(Uint8Array.from({ length: size * size }, (_, at) => data[4 * at]), size, size), type: "image/png" };
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
