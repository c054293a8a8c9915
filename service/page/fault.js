// A model whose file cannot be used: the reason, in place of every section.

import { h } from "./dom.js";

export function faultView({ model }) {
  const heading = h("div", { class: "heading" }, h("h1", {}, `${model.name} cannot be used`));
  const help = h("p", { class: "help" }, "Correct the file and restart the service. The other models work.");
  return { element: h("section", {}, heading, h("div", { class: "card" }, h("p", { class: "trouble", role: "alert" }, model.fault), help)) };
}
