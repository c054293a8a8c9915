// Frame of a job's card: state, progress, cancellation, and the job's events while the card is open.

import { getJson, send } from "./api.js";
import { trying } from "./dialogs.js";
import { h } from "./dom.js";
import { follow, isFinal } from "./events.js";

/** Create a card with `update(job)`, `fold()` and `stop()`.
 *
 * `headline(job)` is its summary, `content` and `buttons` are elements in it; `draw(job)` updates them. `progressed(point)`
 * gets each point of a job at work. When a job has finished while its card was open, `ended()` is called. `completed(job)`
 * is called once, with the whole job, when the card of a finished job is open.
 */
export function cardFrame(first, { open = false, headline, content, buttons = [], draw = () => {}, progressed = () => {}, ended = () => {}, completed }) {
  let job = first;
  let loaded = false;
  let waiting = false;
  const ending = new AbortController();
  const state = h("span", { class: "chip" });
  const summary = h("span", { class: "summary" });
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Progress" });
  const cancel = h("button", { type: "button", on: { click: () => trying(() => send(`jobs/${job.id}/cancel`, { method: "POST" })) } }, "Cancel");
  const element = h("details", { class: "job card", data: { job: job.id } }, h("summary", {}, state, summary),
    h("div", { class: "body" }, bar, content, h("p", { class: "buttons" }, cancel, buttons)));

  function redraw() {
    const over = isFinal(job.state);
    state.textContent = job.state;
    state.dataset.state = job.state;
    summary.textContent = headline(job);
    bar.hidden = cancel.hidden = over;
    if (job.progress?.steps) bar.value = job.progress.step / job.progress.steps;
    else if (job.state === "running") bar.removeAttribute("value");
    else bar.value = 0;
    draw(job);
  }

  function redrawSoon() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      redraw();
    });
  }

  function onEvent(kind, { job: _, attempt, ...data }) {
    if (kind === "log") return;
    if (kind === "progress") progressed(data);
    job = kind === "progress" ? { ...job, attempt, progress: data } : { ...job, attempt, ...data };
    redrawSoon();
  }

  async function load() {
    if (loaded) return;
    loaded = true;
    if (!isFinal(job.state)) {
      await trying(() => follow(`jobs/${job.id}/events`, onEvent, ending.signal));
      if (ending.signal.aborted) return;
      ended();
    }
    job = (await trying(() => getJson(`jobs/${job.id}`))) ?? job; // lists leave out the rows of reports
    if (ending.signal.aborted) return;
    redraw();
    if (isFinal(job.state)) await trying(() => completed(job));
    else loaded = false; // its events were refused: the list will bring its end
  }

  function update(newer) {
    if (loaded) return; // its events, or its result, are more recent
    job = newer;
    redraw();
    if (element.open && isFinal(job.state)) load();
  }

  element.addEventListener("toggle", () => element.open && load());
  element.open = open;
  redraw();
  return { element, update, redraw, fold: () => (element.open = false), stop: () => ending.abort() };
}
