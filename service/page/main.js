// Navigation between models and sections, the service's status, and the API key.

import { Unreachable, asUrl, connection, getJsonSoon, getText, onKeyNeeded, savedKey } from "./api.js";
import { auditView } from "./audit.js";
import { dataView } from "./data.js";
import { askKey, closeDialogs, notify, showText, trying } from "./dialogs.js";
import { h } from "./dom.js";
import { faultView } from "./fault.js";
import { predictView } from "./predict.js";
import { trainView } from "./train.js";
import { versionsView } from "./versions.js";

const SECTIONS = { predict: ["Predict", predictView], train: ["Train", trainView], versions: ["Versions", versionsView],
  data: ["Data", dataView], audit: ["Audit", auditView] };
const POLL_MS = 4000; // interval between requests for the live versions
const main = document.getElementById("main");
const tabs = document.getElementById("models");
const state = document.getElementById("state");
const banner = document.getElementById("offline");
const keyButton = document.getElementById("key");
const links = document.getElementById("links");

let models = [];
let shown = { address: "", view: null };
let offline = false;

onKeyNeeded(async (problem) => {
  const given = await askKey(problem);
  showState(given ? "" : "locked");
  return given;
});
connection.addEventListener("lost", () => {
  offline = true;
  banner.hidden = false;
  banner.textContent = "The service does not answer. Retrying …";
  showState("offline");
});
connection.addEventListener("restored", () => {
  offline = false;
  banner.hidden = true;
  notify("The service responds again.");
  refreshModels().then(() => shown.view?.refresh?.());
});
addEventListener("hashchange", show);
tabs.addEventListener("keydown", moveAmongTabs);
keyButton.addEventListener("click", async () => {
  const reason = savedKey() ? { title: "A key is in use", detail: "a new key replaces it" } : { title: "No key is in use", detail: "some requests need one" };
  if (await askKey(reason)) await refreshModels();
});
start();

async function start() {
  await refreshModels({ quiet: false });
  setInterval(() => document.hidden || offline || refreshModels(), POLL_MS);
}

/** Load the models and their live versions. Only the first call may ask for a key. */
async function refreshModels({ quiet = true } = {}) {
  try {
    const before = models;
    ({ models } = await getJsonSoon("models", { quiet }));
    showState();
    drawTabs();
    if (shown.view === null) show();
    else if (changed(before)) shown.view.refresh?.();
  } catch (error) {
    if (error instanceof Unreachable) return;
    showState(error.status === 401 || error.status === 403 ? "locked" : "trouble");
    if (!quiet && error.status !== 401) notify(error.status ? error : new Error("The answer is not from Torchloop. Is another server, or a proxy, at this address?"));
  }
}

function changed(before) {
  const old = before.find((one) => one.name === current().model?.name);
  return old && (old.loaded !== current().model.loaded || old.live !== current().model.live);
}

function showState(given = "") {
  const faults = models.filter((one) => one.fault);
  const kind = given || (faults.length ? "trouble" : models.length ? "ready" : "wait");
  const texts = { offline: "Offline", locked: "API key required", trouble: "Error", ready: "Ready", wait: "Connecting" };
  state.textContent = texts[kind];
  state.dataset.kind = kind;
  state.title = faults.map((one) => `${one.name}: ${one.fault}`).join("; ");
  if (kind === "locked" || savedKey()) replaceLinks();
  keyButton.hidden = kind !== "locked" && !savedKey();
  keyButton.textContent = savedKey() ? "Change key" : "Enter key";
}

/** Replace the links to pages that need a key, which a link does not send, by buttons that do, or say how. */
function replaceLinks() {
  if (!links.querySelector("a")) return;
  const button = (text, click) => h("button", { type: "button", class: "link", on: { click: () => trying(click) } }, text);
  links.replaceChildren(button("API documentation", showDocumentation), " ", button("Metrics", showMetrics));
}

async function showDocumentation() {
  const url = await asUrl("openapi.json");
  const here = new URL("openapi.json", location.href).href;
  await showText("API documentation", "This service needs a key, which a browser does not send with a link. Save the description of the API (OpenAPI), or fetch it with:",
    `curl -H 'Authorization: Bearer KEY' ${here}`, h("a", { href: url, download: "openapi.json" }, "Save openapi.json"));
  URL.revokeObjectURL(url);
}

async function showMetrics() {
  await showText("Metrics", "Prometheus needs a key of scope predict as the credentials of its authorization.", await getText("metrics"));
}

/** Parse the URL fragment #section/model, of Train also #train/model/dataset; without them: Predict, and the first model that takes pictures. */
function current() {
  const [section, name, dataset = ""] = decodeURIComponent(location.hash.slice(1)).split("/");
  return {
    dataset,
    section: section in SECTIONS ? section : "predict",
    model: models.find((one) => one.name === name) ?? models.find((one) => one.media_types.includes("image/png")) ?? models[0],
  };
}

/** Whether the model's file cannot be used: the service knows its name and fault alone. */
function isUnusable(model) {
  return model.body_schema === null;
}

function drawTabs() {
  const { section, model } = current();
  const focused = tabs.contains(document.activeElement);
  tabs.replaceChildren(...models.map((one) => {
    const chosen = one.name === model.name;
    const version = isUnusable(one) ? "fault" : one.loaded === null ? (one.loading ? "loading" : one.unloaded ? `v${one.live}` : "not live") : `v${one.loaded}`;
    return h("a", { role: "tab", id: `tab-${one.name}`, href: `#${section}/${one.name}`, title: one.fault ?? one.summary,
      "aria-selected": String(chosen), "aria-controls": "main", tabindex: chosen ? "0" : "-1" },
    one.name, " ", h("span", { class: "version" }, version));
  }));
  if (focused) tabs.querySelector('[aria-selected="true"]').focus();
  document.getElementById("sections").replaceChildren(...Object.entries(SECTIONS).map(([name, [title]]) =>
    h("a", { href: `#${name}/${model.name}`, "aria-current": name === section ? "page" : null }, title)));
  document.title = `${model.name} · ${SECTIONS[section][0]} · Torchloop`;
}

function show() {
  const { section, model, dataset } = current();
  const address = `${section}/${model?.name}`; // the file of a model is read at the start of the service only
  if (!model || address === shown.address) return;
  shown.view?.stop?.();
  closeDialogs();
  const viewOf = isUnusable(model) ? faultView : SECTIONS[section][1];
  const view = viewOf({ model, dataset, now: () => models.find((one) => one.name === model.name) ?? model, refreshModels });
  shown = { address, view };
  drawTabs();
  main.setAttribute("aria-labelledby", `tab-${model.name}`);
  main.setAttribute("role", "tabpanel");
  main.replaceChildren(view.element);
  view.refresh?.();
}

function moveAmongTabs(event) {
  const all = [...tabs.children];
  const at = all.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined || at < 0) return;
  event.preventDefault();
  const next = all[(to + all.length) % all.length];
  next.focus();
  location.hash = next.getAttribute("href");
}

