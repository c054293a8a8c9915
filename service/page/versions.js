// The Versions section: the trial, all versions, the live one, comparison of two, and the promotion history.

import { asUrl, getJson, postJson, send } from "./api.js";
import { comparison } from "./compare.js";
import { confirmed, notify, showPicture, trying } from "./dialogs.js";
import { driftCard } from "./drift.js";
import { h } from "./dom.js";
import { figure, when, words } from "./format.js";
import { pairChoice } from "./pair.js";
import { nodesCard } from "./nodes.js";
import { askTrial } from "./opentrial.js";
import { trialCard } from "./trial.js";

export function versionsView({ model, now, refreshModels }) {
  const table = h("div", { class: "scroll card" });
  const history = h("ol", { class: "history", reversed: true });
  const compared = h("div", {});
  const choice = pairChoice(compare);
  const nodes = nodesCard(model);
  const drift = driftCard(model);
  const trial = trialCard(model, () => Promise.all([refreshModels(), refresh()]));
  const back = h("button", { type: "button", on: { click: rollBack } }, "Roll back");
  let versions = [];
  let plots = null;
  let wanted = null; // the pair that was chosen last
  let stopped = false;

  async function refresh() {
    const path = `models/${model.name}`;
    nodes.refresh();
    drift.refresh();
    trial.refresh();
    const found = await trying(() => Promise.all([getJson(`${path}/versions`), getJson(`${path}/promotions`)]));
    if (!found || stopped) return;
    versions = found[0].versions;
    draw();
    history.replaceChildren(...found[1].promotions.reverse().map(entry));
    back.disabled = stackOf(found[1].promotions).length < 2;
  }

  function draw() {
    const newestFirst = [...versions].reverse();
    const figures = figuresOf(model, versions);
    table.replaceChildren(h("table", { class: "stacked" },
      h("thead", {}, h("tr", {}, ["Compare", "Version", ...figures.map(words), "Created", "Origin", "Actions"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, newestFirst.map((version) => row(version, figures)))));
  }

  function row(version, figures) {
    const name = `Version ${version.version}`;
    const promote = version.live ? null : button("Promote", () => makeLive(version.version), name);
    const tried = version.live || now().live === null ? null : button("Trial", () => openTrial(version.version), name);
    const picture = version.job ? button("Picture", () => showRun(version), name) : null;
    return h("tr", { class: version.live ? "live" : null },
      h("td", { data: { label: "Compare" } }, choice.box(version.version, `Compare version ${version.version}`)),
      h("th", { scope: "row" }, String(version.version), version.live && h("span", { class: "chip", data: { state: "live" } }, "live")),
      figures.map((key) => h("td", { class: "number", data: { label: words(key) } }, figure(version.metrics[key]))),
      h("td", { data: { label: "Created" } }, when(version.created_at)),
      h("td", { class: "origin", data: { label: "Origin" } }, version.job ? `job ${version.job.slice(0, 8)}` : "from a file", h("small", { class: "help" }, version.dataset)),
      h("td", {}, h("span", { class: "does" }, promote, tried, button("Download", () => download(version), name), picture)));
  }

  async function compare(pair) {
    wanted = pair;
    plots?.stop();
    plots = null;
    compared.replaceChildren();
    if (!pair) return;
    const ordered = pair.sort((a, b) => a - b).map((one) => versions.find((version) => version.version === one));
    const found = await trying(() => comparison(model, ordered));
    if (stopped || wanted !== pair) {
      found?.stop(); // another pair was chosen meanwhile
    } else if (found) {
      plots = found;
      compared.replaceChildren(plots.element);
    }
  }

  async function makeLive(number) {
    const text = `It is loaded and warmed up, then replaces the live version (${now().live ?? "none"}). No request fails.`;
    if (!(await confirmed(`Make version ${number} live?`, text, "Promote"))) return;
    await change(() => postJson(`models/${model.name}/promote`, { version: number }));
  }

  async function openTrial(number) {
    if (trial.isOpen()) {
      notify("A trial is open: abort it first, or wait for its end.");
      return;
    }
    const opened = await askTrial(model, number, now().live);
    if (!opened || stopped) return;
    trial.show(opened);
    await refresh();
    trial.element.scrollIntoView({ block: "nearest" });
  }

  async function rollBack() {
    const text = `Version ${now().live} is live; the previous live version becomes live again.`;
    if (!(await confirmed(`Roll ${model.name} back?`, text, "Roll back"))) return;
    await change(async () => (await send(`models/${model.name}/rollback`, { method: "POST" })).json());
  }

  async function change(work) {
    const done = await trying(work);
    if (done) {
      const late = done.waiting_for.length ? ` Not yet everywhere: ${done.waiting_for.join(", ")}.` : "";
      notify(`Version ${done.live} of ${model.name} is live (before: ${done.previous ?? "none"}).${late}`);
    }
    await Promise.all([refreshModels(), refresh()]);
  }

  const download = ({ version, artifacts }) => trying(async () => {
    const bundled = artifacts.length > 0; // a state_dict alone does not answer without them
    const url = await asUrl(`models/${model.name}/versions/${version}/checkpoint${bundled ? "?artifacts=true" : ""}`);
    h("a", { href: url, download: `${model.name}-${version}.${bundled ? "tar" : "pt"}` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  });

  const showRun = (version) => trying(async () => {
    const url = await asUrl(`jobs/${version.job}/plot.png`);
    await showPicture(`Training run of version ${version.version} of ${model.name}`, url);
    URL.revokeObjectURL(url);
  });

  const heading = h("div", { class: "heading with-action" }, h("div", {}, h("h1", {}, `Versions of ${model.name}`),
    h("p", {}, "Version numbers are permanent. Select two versions to compare them.")), back);
  const element = h("section", {}, heading, trial.element, table, compared, drift.element, nodes.element, h("h2", {}, "History"), history);
  return {
    element,
    refresh,
    stop() {
      stopped = true;
      nodes.stop();
      drift.stop();
      trial.stop();
      plots?.stop();
    },
  };
}

function button(text, click, about) {
  return h("button", { type: "button", class: "small", "aria-label": `${text}: ${about}`, on: { click } }, text);
}

/** Return the gate's metric on the validation and the test split, then the other metrics of the validation split. */
function figuresOf(model, versions) {
  const known = [...new Set(versions.flatMap((version) => Object.keys(version.metrics)))];
  const first = [`validation_${model.metric}`, model.metric].filter((key) => known.includes(key));
  return [...first, ...known.filter((key) => key.startsWith("validation_") && !first.includes(key))].slice(0, 3);
}

/** Return the live version and the versions that rollbacks would restore, oldest first. `newestFirst`: the promotion history. */
function stackOf(newestFirst) {
  const stack = [];
  for (const one of [...newestFirst].reverse()) {
    if (one.action === "rollback") stack.pop();
    else if (one.action === "promote") stack.push(one.version);
  }
  return stack;
}

const DID = {
  promote: (version) => `Version ${version} went live`,
  rollback: (version) => `Rolled back to version ${version}`,
  trial: (version, state) => `Trial of version ${version}: ${words(state)}`,
};

function entry(promotion) {
  const by = /^[0-9a-f]{32}$/.test(promotion.by) ? `job ${promotion.by.slice(0, 8)}` : promotion.by;
  return h("li", {}, h("strong", {}, DID[promotion.action](promotion.version, promotion.state)),
    h("span", { class: "help" }, ` ${when(promotion.at)}, by ${by}: ${promotion.reason}`));
}
