// The form of the Data section that uploads a file as a dataset version.

import { notify } from "./dialogs.js";
import { h } from "./dom.js";
import { bytes } from "./format.js";
import { resumableUploads } from "./resumable.js";
import { upload } from "./upload.js";

const NAME = "[a-z0-9][a-z0-9_\\-]{0,63}";
const COLUMNS = { label_column: "Label column", split_column: "Split column", group_column: "Group column" };

/** Create the form, with `offer(labels)` for the parents, and `refresh()`. It calls `queued(job)` when a file has been sent.
 * An upload goes on when the section is left. After a reload of the page it goes on when the same file is chosen again.
 */
export function addForm(model, queued) {
  const file = h("input", { id: "data-file", type: "file", class: "visually-hidden", on: { change: () => choose(file.files[0]) } });
  const chosen = h("p", { class: "help", role: "status" }, "No file is chosen.");
  const drop = h("div", { class: "drop", on: { dragover: over, dragleave: () => drop.classList.remove("over"), drop: dropped } },
    h("p", {}, "Drop a file here, or"), file, h("label", { for: "data-file", class: "button" }, "Choose a file"), chosen);
  const name = h("input", { id: "data-name", type: "text", required: true, pattern: NAME, maxlength: 64, autocomplete: "off", spellcheck: "false",
    title: "lower-case letters, digits, - and _" });
  const parent = h("select", { id: "data-parent" });
  const share = h("input", { id: "data-share", type: "number", min: 0, max: 1, step: "any", value: 0, required: true });
  const columns = Object.keys(COLUMNS).map((key) => h("input", { id: `data-${key}`, type: "text", maxlength: 200, autocomplete: "off", placeholder: "by its usual name" }));
  const bar = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Upload" });
  const start = h("button", { class: "main" }, "Upload");
  const stop = h("button", { type: "button", hidden: true, on: { click: () => sending?.abort() } }, "Stop the upload");
  const trouble = h("p", { class: "trouble", role: "alert" });
  const uploads = resumableUploads(model, () => content && !sending && resume(uploads.of(content)));
  let content = null;
  let sending = null;
  let suggested = null; // name of the dataset by that of the file, until it is changed
  let resumed = null; // unfinished upload of the chosen file

  function choose(given) {
    if (!given) return;
    content = given;
    trouble.textContent = "";
    chosen.textContent = `${given.name}, ${bytes(given.size)}`;
    if (!name.value || name.value === suggested) name.value = suggested = nameOf(given.name);
    resume(uploads.of(given));
  }

  /** Take over what the form said when an upload began; null: the file is sent from its begin. */
  function resume(begun) {
    resumed = begun;
    start.textContent = begun ? "Go on with the upload" : "Upload";
    for (const control of [name, parent, share, ...columns]) control.disabled = Boolean(begun);
    if (!begun) return;
    name.value = begun.name;
    share.value = begun.allowRejected;
    columns.forEach((one, at) => (one.value = begun.options[Object.keys(COLUMNS)[at]] ?? ""));
    const label = begun.parent ?? "";
    if (![...parent.options].some((one) => one.value === label)) parent.append(h("option", { value: label }, label));
    parent.value = label;
  }

  function over(event) {
    event.preventDefault();
    drop.classList.add("over");
  }

  function dropped(event) {
    event.preventDefault();
    drop.classList.remove("over");
    if (!sending) choose(event.dataTransfer.files[0]);
  }

  function read() {
    const options = Object.fromEntries(Object.keys(COLUMNS).map((key, at) => [key, columns[at].value.trim() || null]));
    return { model: model.name, name: name.value, file: content, options, parent: resumed ? resumed.parent : parent.value || null, allowRejected: share.valueAsNumber, resumed };
  }

  function busy(on) {
    for (const control of [file, name, parent, share, ...columns, start]) control.disabled = on;
    bar.hidden = stop.hidden = !on;
  }

  async function submit(event) {
    event.preventDefault();
    trouble.textContent = "";
    if (!content) trouble.textContent = "Choose a file first. A folder of pictures must be packed as zip or tar.";
    if (!content || sending) return;
    sending = new AbortController();
    const given = read();
    busy(true);
    uploads.clear();
    try {
      queued(await upload(given, (sent, all) => (bar.value = sent / all), sending.signal));
      notify(`${given.file.name} has arrived; its rows are being read.`);
    } catch (error) {
      trouble.textContent = error.name === "AbortError" ? "The upload was stopped." : error.message;
      if (!element.isConnected) notify(error); // the section was left
    } finally {
      sending = null;
      busy(false);
      resume(null);
      await uploads.refresh();
    }
  }

  const element = h("form", { class: "card", "aria-label": "Add data", on: { submit } }, h("h2", {}, "Add data"), uploads.element, drop,
    h("div", { class: "fields" },
      field(name, "Name", "lower-case letters, digits, - and _"),
      field(parent, "Grows from", "the new version has its rows too"),
      field(share, "Share of rows that may be refused", "0 to 1; 0: one bad row stops it"),
      ...columns.map((one, at) => field(one, Object.values(COLUMNS)[at]))),
    bar, trouble, h("p", { class: "buttons" }, start, stop));
  return {
    element,
    refresh: async () => sending || uploads.refresh(),
    offer(labels) {
      const before = parent.value;
      parent.replaceChildren(h("option", { value: "" }, "no other version"), ...labels.map((label) => h("option", { value: label }, label)));
      parent.value = labels.includes(before) ? before : "";
    },
  };
}

function field(control, label, help = "") {
  if (help) control.setAttribute("aria-describedby", `${control.id}-help`);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, help && h("small", { class: "help", id: `${control.id}-help` }, help));
}

/** "My Points.csv.gz" -> "my-points". */
function nameOf(file) {
  return file.toLowerCase().replace(/\..*$/, "").replace(/[^a-z0-9_-]+/g, "-").replace(/^[-_]+|-+$/g, "").slice(0, 64);
}
