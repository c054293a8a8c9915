// A captured sample: its pictures in their colours, its named inputs as a list, its numbers, or its text.

import { asUrl } from "./api.js";
import { h } from "./dom.js";
import { figure, words } from "./format.js";
import { outputBlock } from "./outputs.js";
import { namedInputs } from "./signature.js";

const LEAST = 224; // pixels of the longer side: smaller pictures are enlarged
const TOO_LARGE = "too large to be shown here";

/** Begin to load the pictures of a sample. Returns what `sampleView` shows; `release()` frees them. */
export function prepared(model, sample) {
  const urls = [];
  const load = async (path) => {
    try {
      urls.push(await asUrl(path, { quiet: true }));
      return { url: urls.at(-1) };
    } catch (error) {
      return { error };
    }
  };
  const pictures = Object.entries(sample.pictures).map(([name, path]) => ({ name, loaded: load(path.slice(1)) })); // below a path prefix, too
  const place = `models/${encodeURIComponent(model.name)}/captures/${encodeURIComponent(sample.id)}/${sample.index}`;
  const original = sample.original ? load(`${place}/original`) : null;
  return { sample, pictures, original, release: () => urls.splice(0).forEach((url) => URL.revokeObjectURL(url)) };
}

/** Create the elements of a prepared sample. `failed(error)` is called if a picture cannot be loaded: 404 if it is erased. */
export function sampleView(model, { sample, pictures, original }, failed) {
  const figures = pictures.map(({ name, loaded }) => pictureFigure(loaded, name ? words(name) : original ? "as the model reads it" : "", failed));
  if (original) figures.unshift(pictureFigure(original, "as it came", failed));
  const notes = pictures.length && !original ? `${pictures.length > 1 ? "The files were not kept as they came: these are the pictures" : "The file was not kept as it came: this is the picture"} as the model reads ${pictures.length > 1 ? "them" : "it"}. ` : null;
  return h("div", { class: "sample" }, figures.length > 0 && h("div", { class: "captured" }, figures), valuesOf(model, sample),
    h("p", { class: "help" }, notes, "Answer ", h("code", {}, sample.id), sample.index > 0 && `, sample ${sample.index + 1} of its request`, sample.key && `, key ${sample.key}`));
}

function pictureFigure(loaded, caption, failed) {
  const image = h("img", { class: "picture", alt: `Captured picture${caption ? `, ${caption}` : ""}`, hidden: true });
  const place = h("figure", {}, image, caption && h("figcaption", { class: "help" }, caption));
  image.addEventListener("load", () => {
    const longer = Math.max(image.naturalWidth, image.naturalHeight);
    image.classList.toggle("enlarged", longer < LEAST);
    if (longer < LEAST) image.style.width = `${(image.naturalWidth / longer) * LEAST}px`;
    image.hidden = false;
  });
  loaded.then(({ url, error }) => {
    if (url) image.src = url;
    else failed(error);
  });
  return place;
}

function valuesOf(model, { inputs, pictures }) {
  const named = namedInputs(model);
  if (inputs !== null && typeof inputs === "object" && !Array.isArray(inputs)) return list(named, inputs, pictures);
  if (named.length === 1 && typeof inputs === "string") return text(inputs);
  if (Object.keys(pictures).length) return null;
  if (inputs === null) return h("p", {}, `This sample has more than 1,024 numbers and is no picture: it is ${TOO_LARGE}. Label it by its key, if you know it from there, or skip it.`);
  return outputBlock("input", inputs);
}

/** The named inputs but pictures, in the order of the signature. */
function list(named, inputs, pictures) {
  const shown = named.map(({ name }) => name).filter((name) => !(name in pictures));
  return shown.length > 0 && h("dl", { class: "inputs" }, shown.map((name) => [h("dt", {}, words(name)), h("dd", {}, name in inputs ? value(inputs[name]) : TOO_LARGE)]).flat());
}

function value(one) {
  if (one === null) return h("span", { class: "help" }, "not given");
  if (typeof one === "string") return text(one);
  return Array.isArray(one) ? h("code", {}, JSON.stringify(one)) : figure(one);
}

function text(given) {
  return h("span", { class: "text" }, given);
}
