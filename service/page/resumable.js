// List of a model's unfinished uploads in the Data section: each goes on when its file is chosen again, or is discarded.

import { confirmed, trying } from "./dialogs.js";
import { h } from "./dom.js";
import { bytes } from "./format.js";
import { discard, isFileOf, unfinished } from "./unfinished.js";

/** Create the list with `refresh()`, `clear()` and `of(file)`: the upload of that file, or null. It calls `changed()`. */
export function resumableUploads(model, changed) {
  const element = h("ul", { class: "unfinished", "aria-label": "Unfinished uploads", hidden: true });
  let known = [];
  let turns = 0;

  function draw(found) {
    if (JSON.stringify(found) === JSON.stringify(known)) return; // keeps the focus
    known = found;
    element.hidden = !found.length;
    element.replaceChildren(...found.map(entry));
    changed();
  }

  function entry(one) {
    const text = `${one.file.name} for ${one.name}: ${bytes(one.received)} of ${bytes(one.file.size)} have arrived. Choose the same file again to go on.`;
    return h("li", {}, h("span", {}, text),
      h("button", { type: "button", class: "small", "aria-label": `Discard: ${one.file.name}`, on: { click: () => abandon(one) } }, "Discard"));
  }

  async function abandon(one) {
    if (!(await confirmed(`Discard the upload of ${one.file.name}?`, "What has arrived is removed.", "Discard"))) return;
    await trying(() => discard(one.upload));
    await refresh();
  }

  async function refresh() {
    const turn = ++turns;
    const found = await unfinished(model.name);
    if (turn === turns) draw(found);
  }

  function clear() {
    turns += 1; // what is being loaded is not shown
    draw([]);
  }

  return { element, refresh, clear, of: (file) => known.find((one) => isFileOf(one, file)) ?? null };
}
