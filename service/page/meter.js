// Bars that show a value against its limit.

import { h } from "./dom.js";

/** Create a bar. `part`: its length, 0 to 1; `mark`: where its limit is, or null; `tone`: "", "good", "warn" or "bad"; `text`: the value in words; `about`: what it is a value of, for screen readers. */
export function meter({ label, about = "", part, text, tone = "", mark = null }) {
  const within = Math.max(0, Math.min(1, part));
  const bar = h("span", { class: "fill" });
  bar.style.width = `${within * 100}%`;
  const limit = mark === null ? null : h("span", { class: "limit" });
  if (limit) limit.style.left = `${mark * 100}%`;
  return h("div", { class: "meter", data: { tone } },
    h("span", { class: "meter-label" }, label), h("span", { class: "meter-text" }, text),
    h("span", { class: "meter-track", role: "meter", "aria-label": about ? `${about}: ${label}` : label, "aria-valuemin": 0, "aria-valuemax": 100,
      "aria-valuenow": Math.round(within * 100), "aria-valuetext": text }, bar, limit));
}

/** Return the place of a value of 1 to `limit` on a logarithmic scale, 0 to 1. Values below 1 are at 0. */
export function logarithmic(value, limit) {
  return value <= 1 ? 0 : Math.min(1, Math.log(value) / Math.log(limit));
}
