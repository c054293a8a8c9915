// Numbers of examples as bars: by split, and by label and split.

import { h } from "./dom.js";

export const SPLITS = ["train", "validation", "test"];

/** Create a table of the examples of a dataset version, a row for each label, with a bar on a common scale. */
export function countsTable({ examples, by_label: byLabel }, caption) {
  const labels = Object.entries(byLabel);
  const most = Math.max(1, ...labels.map(([, counts]) => total(counts)));
  const body = labels.map(([label, counts]) => rowOf(label, counts, most));
  const all = rowOf("all", examples, labels.length ? total(examples) : Math.max(1, total(examples)));
  return h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": caption }, h("table", { class: "counts" },
    h("caption", { class: "visually-hidden" }, caption),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, labels.length ? "Label" : ""), h("td", {}),
      SPLITS.map((name, at) => h("th", { scope: "col", class: `number key line-${at}` }, name)), h("th", { scope: "col", class: "number" }, "all"))),
    h("tbody", {}, body), h("tfoot", {}, all)));
}

/** Create a bar of the three splits; `most` is the count at full width. */
export function splitBar(counts, most) {
  return h("span", { class: "splits", "aria-hidden": "true" }, SPLITS.map((split, at) => {
    const part = h("span", { class: `split line-${at}`, title: `${split} ${counts[split] ?? 0}` });
    part.style.width = `${((counts[split] ?? 0) / most) * 100}%`;
    return part;
  }));
}

/** Return the number of examples in all splits. */
export function total(counts) {
  return SPLITS.reduce((sum, split) => sum + (counts[split] ?? 0), 0);
}

/** Name the colours of the splits. */
export function legend() {
  return SPLITS.map((split, at) => h("span", { class: `key line-${at}` }, split));
}

function rowOf(label, counts, most) {
  return h("tr", {}, h("th", { scope: "row" }, label), h("td", { class: "track-cell" }, splitBar(counts, most)),
    SPLITS.map((split) => h("td", { class: counts[split] ? "number" : "number none" }, grouped(counts[split] ?? 0))),
    h("td", { class: "number" }, grouped(total(counts))));
}

/** 12345 -> "12,345". */
export function grouped(count) {
  return count === null || count === undefined ? "–" : count.toLocaleString("en");
}
