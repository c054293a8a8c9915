// Thumbnails of rows with a picture, loaded when they come into view.

import { asUrl } from "./api.js";
import { h } from "./dom.js";

const AHEAD = "200px"; // loaded so far outside of what is seen

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    load(target);
  }
}, { rootMargin: AHEAD });

const sources = new WeakMap(); // image -> its path, and the text that replaces it

/** Create a list of thumbnails. Each of `items` has `path` (null: no picture), `alt`, and `title` and `lines` below it. */
export function gallery(items, label) {
  const element = h("ul", { class: "gallery", "aria-label": label });
  element.append(...items.map(figureOf));
  return { element, append: (more) => element.append(...more.map(figureOf)) };
}

function figureOf({ path, alt, title = null, lines = [] }) {
  return h("li", {}, h("figure", {}, path === null ? h("span", { class: "thumb none" }, "no picture") : thumbnail(path, alt),
    h("figcaption", {}, title && h("strong", {}, title), lines.map((line) => h("span", {}, line)))));
}

/** Create a picture of at most 96 pixels; one that cannot be loaded is replaced by the text `missing`. */
export function thumbnail(path, alt, missing = "no picture") {
  const image = h("img", { class: "thumb", alt, width: 96, height: 96 });
  sources.set(image, { path, missing });
  observer.observe(image);
  return image;
}

async function load(image) {
  const { path, missing } = sources.get(image);
  try {
    const url = await asUrl(path, { quiet: true });
    image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
    image.src = url;
  } catch {
    image.replaceWith(h("span", { class: "thumb none" }, missing)); // erased, or the connection is lost
  }
}
