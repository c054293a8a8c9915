// Choice of two things to compare, by check boxes in a table.

import { h } from "./dom.js";

/** Create a choice with `box(key, label)` and `pair()`; `changed(pair)` gets two keys in the order of choice, or null.
 * A third one takes the place of the first. A table that is drawn again asks for its boxes again.
 */
export function pairChoice(changed) {
  const chosen = new Set();
  const boxes = new Map();
  const pair = () => (chosen.size === 2 ? [...chosen] : null);

  function choose(key, on) {
    if (on) chosen.add(key);
    else chosen.delete(key);
    if (chosen.size > 2) {
      const [first] = chosen;
      chosen.delete(first);
      boxes.get(first).checked = false;
    }
    changed(pair());
  }

  function box(key, label) {
    const element = h("input", { type: "checkbox", "aria-label": label, on: { change: () => choose(key, element.checked) } });
    element.checked = chosen.has(key);
    boxes.set(key, element);
    return element;
  }

  /** Forget what is no longer there. */
  function keep(keys) {
    for (const key of chosen) if (!keys.includes(key)) chosen.delete(key);
  }

  return { box, pair, keep };
}
