// The nodes: the services that share the database, and the version of a model that each of them answers with.

import { getJson } from "./api.js";
import { h } from "./dom.js";
import { figure, when } from "./format.js";

const POLL_MS = 4000; // nodes come and go

/** Return a card that lists the nodes; it is hidden while there is only one. */
export function nodesCard(model) {
  const table = h("div", { class: "scroll card" });
  const element = h("section", { hidden: true, "aria-label": "Nodes" }, h("h2", {}, "Nodes"), table);
  const timer = setInterval(() => document.hidden || refresh(), POLL_MS);
  let stopped = false;

  async function refresh() {
    const found = await getJson("nodes", { quiet: true }).catch(() => null); // the header shows a lost connection
    if (!found || stopped) return;
    element.hidden = found.nodes.length < 2;
    const names = ["Node", "State", "Version", "Waiting", "Predictions per second", "Processes", "Last seen"];
    table.replaceChildren(h("table", { class: "stacked nodes" },
      h("thead", {}, h("tr", {}, names.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, found.nodes.map((node) => row(node, model.name)))));
  }

  return {
    element,
    refresh,
    stop() {
      stopped = true;
      clearInterval(timer);
    },
  };
}

function row(node, model) {
  const cell = (label, ...content) => h("td", { data: { label } }, ...content);
  return h("tr", {},
    h("th", { scope: "row", title: node.software }, node.address),
    cell("State", h("span", { class: "chip", data: { state: { serving: "live", silent: "failed" }[node.state] ?? "" } }, node.state)),
    cell("Version", String(node.loaded[model] ?? "–")),
    cell("Waiting", figure(node.load.waiting)),
    cell("Predictions per second", figure(node.load.requests_per_s)),
    cell("Processes", String(node.processes)),
    cell("Last seen", when(node.seen_at)));
}
