// Samples that both versions of a trial answered differently, side by side.

import { h } from "./dom.js";
import { grouped } from "./counts.js";
import { figure, percent, words } from "./format.js";
import { thumbnail } from "./thumbs.js";

const LONGEST = 200; // characters of an answer

/** Say how many samples were answered differently; null if none is known. */
export function differenceHeading({ evidence }) {
  const shown = evidence.differences.length;
  if (!shown) return null;
  const [differed, all] = evidence.stages.reduce(([a, b], one) => [a + one.differed, b + one.differed + one.agreed], [0, 0]);
  const counted = all ? `${grouped(differed)} of ${grouped(all)} samples were answered differently` : "Answered differently";
  return h("h3", {}, counted, differed > shown && h("span", { class: "help" }, `, the first ${shown}:`));
}

/** Create a table of the differing samples; null if there are none. Pictures are shown if they were captured. */
export function differenceTable({ evidence, live, version }, model) {
  if (!evidence.differences.length) return null;
  const names = [`Version ${live}, live`, `Version ${version}`];
  const pictures = model.media_types.includes("image/png");
  const pathOf = (one) => `models/${encodeURIComponent(model.name)}/captures/${encodeURIComponent(one.id)}/${one.index}/picture.png`;
  return h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Samples answered differently" }, h("table", { class: "stacked differing" },
    h("thead", {}, h("tr", {}, ["Sample", ...names].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, evidence.differences.map((one) => h("tr", {},
      h("th", { scope: "row" }, pictures && thumbnail(pathOf(one), `Picture of ${one.id}`, "not captured"),
        h("code", {}, one.id), one.index > 0 && h("span", { class: "help" }, ` no. ${one.index + 1}`)),
      answer(names[0], one.live, one.better === "live"), answer(names[1], one.candidate, one.better === "candidate"))))));
}

function answer(label, value, isRight) {
  return h("td", { data: { label } }, h("span", {}, said(value), isRight && h("span", { class: "chip", data: { tone: "good" } }, "right")));
}

/** Return the elements that show an answer in short. */
function said(value) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return short(value);
  if (value.label !== undefined) return [h("strong", {}, String(value.label)), value.probability === undefined ? "" : ` ${percent(value.probability)}`];
  if (value.value !== undefined) return h("strong", {}, figure(value.value));
  return Object.entries(value).map(([name, one]) => h("span", { class: "said" }, `${words(name)}: ${short(one)}`));
}

function short(value) {
  const text = typeof value === "number" ? figure(value) : typeof value === "string" ? value : JSON.stringify(value);
  return text.length > LONGEST ? `${text.slice(0, LONGEST)} …` : text;
}
