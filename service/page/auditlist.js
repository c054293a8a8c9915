// The list of captured samples to label, loaded a page at a time.

import { getJson } from "./api.js";

const PAGE = 20;

/**
 * Create the list of the unlabelled samples of a version. `next()` returns one, or null at the end; `skip(sample)` leaves
 * it out until `restart()`; `putBack(sample)` makes it the next one. `skipped()`: how many are left out.
 */
export function auditList(model, { version, order }) {
  const path = `models/${encodeURIComponent(model.name)}/captures`;
  const shown = new Set(); // of the samples that this visit has shown
  const left = new Set();
  let waiting = [];
  let cursor = null;
  let ended = false;

  async function next() {
    for (;;) {
      for (let one = waiting.shift(); one; one = waiting.shift()) {
        if (shown.has(nameOf(one))) continue;
        shown.add(nameOf(one));
        return one;
      }
      if (ended) return null;
      const wanted = new URLSearchParams({ unlabelled: true, order, version, limit: PAGE, ...(cursor ? { cursor } : {}) });
      const found = await getJson(`${path}?${wanted}`, { quiet: true });
      waiting = found.captures.map((one) => ({ ...one, order }));
      cursor = found.cursor;
      ended = cursor === null;
    }
  }

  return {
    next,
    peek: () => waiting.find((one) => !shown.has(nameOf(one))) ?? null,
    skip: (sample) => left.add(nameOf(sample)),
    skipped: () => left.size,
    putBack(sample) {
      shown.delete(nameOf(sample));
      waiting.unshift(sample);
    },
    /** Begin again: with samples that have come since, and those that were skipped. */
    restart() {
      left.forEach((name) => shown.delete(name));
      left.clear();
      [waiting, cursor, ended] = [[], null, false];
    },
  };
}

function nameOf({ id, index }) {
  return `${id} ${index}`;
}
