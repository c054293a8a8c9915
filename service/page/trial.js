// The trial of a model: its stages, evidence and differing samples, and the buttons that move or end it.

import { Problem, getJson, postJson } from "./api.js";
import { notify, reasoned, trying } from "./dialogs.js";
import { differenceHeading, differenceTable } from "./differences.js";
import { h } from "./dom.js";
import { follow, isFinal } from "./events.js";
import { conditionList, countTable } from "./evidence.js";
import { sentence, when, words } from "./format.js";
import { meaning, nameOf, stageTrack, standing } from "./stages.js";

const POLL_MS = 2000; // while a trial is open
const RARELY_MS = 5000; // other clients may open one
const TONES = { promoted: "good", rolled_back: "bad", paused: "warn" };

/** Create a card with `refresh()`, `show(trial)`, `isOpen()` and `stop()`; `moved()` is called after each transition of a trial. */
export function trialCard(model, moved) {
  const path = `models/${encodeURIComponent(model.name)}/trial`;
  const title = h("strong", {});
  const chip = h("span", { class: "chip" });
  const summary = h("span", { class: "summary" });
  const news = h("p", { class: "visually-hidden", role: "status" });
  const next = h("p", { class: "next" });
  const parts = [
    part(stageTrack, ({ state, stage, evidence }) => [state, stage, evidence.stages, evidence.seconds_left]),
    part(conditionList, ({ evidence }) => evidence.conditions),
    part(countTable, ({ evidence }) => evidence.stages),
    part(differenceHeading, ({ evidence }) => [evidence.stages, evidence.differences.length]),
    part((found) => differenceTable(found, model), ({ evidence }) => evidence.differences),
  ];
  const [advance, pause, resume, abort] = ["Advance", "Pause", "Resume", "Abort"].map((text) => h("button", { type: "button", on: { click: () => move(text) } }, text));
  const buttons = h("p", { class: "buttons" }, advance, pause, resume, abort);
  const details = h("details", { class: "job card trial" }, h("summary", {}, chip, title, summary),
    h("div", { class: "body" }, next, parts[0].element, buttons, parts.slice(1).map((one) => one.element)));
  const element = h("section", { hidden: true, "aria-label": "Trial" }, h("h2", {}, "Trial"), details, news);
  let timer = 0;
  let trial = null;
  let following = null; // id of the trial whose events are read
  let stopped = false;
  const ending = new AbortController();
  const isOpen = () => trial !== null && !isFinal(trial.state);
  pollLater();

  function pollLater() {
    timer = setTimeout(async () => {
      if (!document.hidden) await refresh();
      if (!stopped) pollLater();
    }, isOpen() ? POLL_MS : RARELY_MS);
  }

  /** Load again, without a message if that fails: the page's header shows a lost connection or a missing key. */
  async function refresh() {
    try {
      const found = await getJson(path, { quiet: true });
      if (!stopped) show(found);
    } catch (error) {
      if (!(error instanceof Problem && error.status === 404)) return;
      element.hidden = true;
    }
  }

  function show(found) {
    const before = trial;
    trial = found;
    const open = isOpen();
    if (before?.id !== found.id) details.open = open;
    element.hidden = false;
    draw(open);
    if (before && (before.id !== found.id || before.state !== found.state || before.stage !== found.stage)) {
      news.textContent = `Trial of version ${found.version}: ${standing(found)}. ${found.reason}`;
      moved();
    }
    if (open && following !== found.id) listen(found.id);
  }

  function draw(open) {
    title.textContent = `Version ${trial.version}`;
    chip.textContent = words(trial.state);
    chip.dataset.tone = TONES[trial.state] ?? "on";
    const at = open ? `stage ${trial.stage + 1} of ${trial.stages.length}` : when(trial.finished_at);
    summary.textContent = `beside version ${trial.live} · ${at}`;
    next.textContent = `${lacksInBars(trial) ? "" : sentence(trial.evidence.next || trial.reason)} ${open ? meaning(trial) : ""}`.trim();
    buttons.hidden = !open;
    pause.hidden = trial.state === "paused";
    resume.hidden = trial.state !== "paused";
    for (const one of parts) one.draw(trial);
  }

  /** Load again at each event of an open trial. If the events are refused, polling goes on. */
  function listen(id) {
    following = id;
    follow(`trials/${id}/events`, () => refresh(), ending.signal).catch(() => {});
  }

  async function move(text) {
    const reason = await reasoned(...question(text));
    if (reason === null) return;
    const done = await trying(() => postJson(`${path}/${text.toLowerCase()}`, { reason }));
    if (!done || stopped) return;
    show(done);
    if (done.waiting_for.length) notify(`Not yet everywhere: ${done.waiting_for.join(", ")}.`);
  }

  /** Return title, text and action of the confirmation. */
  function question(text) {
    const { version, live, stage, stages } = trial;
    const after = stages[stage + 1];
    const texts = {
      Advance: [`Skip the rest of stage ${stage + 1}?`, after ? `The trial goes on with stage ${stage + 2}: ${nameOf(after)}.` : `It is the last one: version ${version} is loaded and goes live.`],
      Pause: ["Pause the trial?", "The clock of its stage stops, and a shadow too. A canary keeps its share, and may still be rolled back."],
      Resume: ["Resume the trial?", `Stage ${stage + 1}, ${nameOf(stages[stage])}, goes on.`],
      Abort: ["Abort the trial?", `Version ${version} answers no more requests, and version ${live} stays live.`],
    };
    return [...texts[text], text];
  }

  return {
    element,
    refresh,
    show,
    isOpen,
    stop() {
      stopped = true;
      clearTimeout(timer);
      ending.abort();
    },
  };
}

/** Whether all that the trial waits for is shown by the bars of its stage. */
function lacksInBars({ state, stage, stages, evidence }) {
  if (isFinal(state) || state === "paused") return false;
  const arms = evidence.stages.find((one) => one.stage === stage)?.arms ?? {};
  return evidence.seconds_left > 0 || ((arms.candidate ?? arms.shadow)?.samples ?? 0) < stages[stage].samples;
}

/** Create a place for what `make(trial)` returns. It is drawn again if `key(trial)` has changed, so that it keeps focus, scroll and pictures. */
function part(make, key) {
  const element = h("div", {});
  let drawn = "";
  return {
    element,
    draw(trial) {
      const now = JSON.stringify([trial.id, key(trial)]);
      if (now === drawn) return;
      drawn = now;
      element.replaceChildren(...h("div", {}, make(trial)).childNodes);
    },
  };
}
