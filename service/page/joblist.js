// List of a model's newest jobs of one kind, as cards that are updated while the section is shown.

import { getJson } from "./api.js";
import { trying } from "./dialogs.js";
import { h } from "./dom.js";

const POLL_MS = 4000; // other clients may start jobs
const MOST = 20; // newest jobs of the model, of one kind

/** Create a list with `refresh({ quiet })`, `add(job)` and `stop()`.
 *
 * `cardOf(job, open)` makes a card; `openFirst` opens that of the newest job. `also(options)` loads what else the section
 * shows. `none` is shown if there are no jobs.
 */
export function jobList({ model, kind, cardOf, also = async () => {}, openFirst = false, none = null }) {
  const cards = new Map();
  const element = h("div", { class: "jobs" });
  let stopped = false;

  function shown(job, open) {
    if (!cards.has(job.id)) cards.set(job.id, cardOf(job, open));
    else cards.get(job.id).update(job);
    return cards.get(job.id).element;
  }

  async function load(options) {
    const path = `jobs?model=${encodeURIComponent(model.name)}&kind=${kind}&limit=${MOST}`;
    const [{ jobs }] = await Promise.all([getJson(path, options), also(options)]);
    if (stopped) return;
    const elements = jobs.map((job, at) => shown(job, openFirst && at === 0));
    const same = elements.length === element.children.length && elements.every((one, at) => one === element.children[at]);
    if (!same) element.replaceChildren(...elements);
    if (none) none.hidden = elements.length > 0;
  }

  /** Load again. `quiet`: without a message if that fails; the page's header shows a lost connection or a missing key. */
  const refresh = ({ quiet = false } = {}) => (quiet ? load({ quiet }).catch(() => {}) : trying(() => load()));
  const timer = setInterval(() => document.hidden || refresh({ quiet: true }), POLL_MS);
  return {
    element,
    refresh,
    add(job) {
      if (stopped) return;
      for (const card of cards.values()) card.fold();
      element.prepend(shown(job, true));
      if (none) none.hidden = true;
    },
    stop() {
      stopped = true;
      clearInterval(timer);
      for (const card of cards.values()) card.stop();
    },
  };
}
