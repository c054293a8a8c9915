// Labels captured samples one by one, with a key for each label. The model's answer is shown after the label only.

import { getJson, postJson } from "./api.js";
import { trying } from "./dialogs.js";
import { h } from "./dom.js";
import { when } from "./format.js";
import { saidText, truthText, verdict } from "./said.js";
import { prepared, sampleView } from "./sample.js";
import { truthControl, truthForm } from "./truth.js";

const TONES = { right: "good", wrong: "bad" };
const TYPED_INTO = "input, select, textarea";

/**
 * Create the card. `choices`: elements above the example; `label(list)`: begin with an auditList, `say(text)`: show words
 * instead, `fail(error)`: an error. `labelled()` is called after each label, `atEnd(skipped)` resolves to the words for
 * the end of the list.
 */
export function labellingCard(model, { choices, labelled, atEnd }) {
  const path = `models/${encodeURIComponent(model.name)}`;
  const title = h("h2", { id: "labelling-title" }, "Label answers");
  const place = h("div", { class: "example" });
  const controls = h("div", {});
  const trouble = h("p", { class: "trouble", role: "alert" });
  const news = h("p", { class: "news", role: "status" });
  const skip = h("button", { type: "button", on: { click: leave } }, "Skip");
  const undo = h("button", { type: "button", disabled: true, on: { click: takeBack } }, "Undo");
  const hint = h("p", { class: "help keys" });
  const asked = h("div", { hidden: true }, controls, h("p", { class: "buttons" }, skip, undo), hint);
  const element = h("section", { class: "card labelling", tabindex: "-1", "aria-labelledby": title.id, on: { keydown: press } }, title, choices, place, trouble, asked, news);
  let list = null;
  let control = null;
  let shown = null; // the prepared sample
  let ahead = null; // the next one, whose pictures are loaded already
  let done = []; // labelled samples, the last one at the end
  let busy = false;

  async function label(chosen) {
    list = chosen;
    done = [];
    undo.disabled = true;
    trouble.textContent = news.textContent = "";
    try {
      control ??= controlOf(await truthForm(model, { quiet: true }));
    } catch (error) {
      if (list === chosen) fail(error);
      return;
    }
    if (list === chosen) await advance();
  }

  function controlOf(outputs) {
    const made = truthControl(model, outputs, tell);
    controls.replaceChildren(made.element);
    hint.textContent = made.focus ? made.hint : [made.hint, "→ skips", "Backspace takes the last label back"].filter(Boolean).join(" · ");
    hint.classList.toggle("keys", !made.focus);
    return made;
  }

  /** Show the next sample of the list. */
  async function advance() {
    const mine = list;
    try {
      const sample = await mine.next();
      if (mine !== list) return;
      if (sample) show(sample);
      else await end(mine);
    } catch (error) {
      if (mine === list) fail(error);
    }
  }

  function show(sample) {
    const made = ahead?.sample === sample ? ahead : prepared(model, sample);
    forget(made);
    shown = made;
    asked.hidden = skip.disabled = false;
    place.replaceChildren(sampleView(model, made, (error) => shown === made && missing(error)));
    control.mark(sample.truth);
    control.allow(true);
    const after = list.peek();
    ahead = after && prepared(model, after);
    if (document.activeElement !== document.body) return; // it stays where the user is
    if (control.focus) control.focus();
    else element.focus({ preventScroll: true });
  }

  /** Free the pictures of the samples that are held, but one. */
  function forget(kept = null) {
    for (const one of [shown, ahead]) if (one !== kept) one?.release();
    shown = ahead = null;
  }

  function missing(error) {
    trouble.textContent = error.status === 404 ? "This sample is gone: it was erased, or retention has removed it. Skip it." : `Its picture cannot be shown: ${error.message}`;
    control.allow(error.status !== 404);
  }

  async function tell(truth) {
    if (!shown || busy) return;
    const { sample } = shown;
    busy = true;
    trouble.textContent = "";
    try {
      const entry = { id: sample.id, index: sample.index, truth, kind: "audit", order: sample.order, replace: sample.truth !== undefined };
      const [result] = (await postJson(`${path}/feedback`, { feedback: [entry] })).results;
      if (shown?.sample !== sample) return; // another list was chosen meanwhile: the label is saved all the same
      if (result.accepted) await accepted(sample, truth);
      else refused(sample, result);
    } catch (error) {
      trouble.textContent = `Not saved: ${error.message}`;
    } finally {
      busy = false;
    }
  }

  async function accepted(sample, truth) {
    const compared = verdict(sample.said, truth);
    sample.truth = truth;
    done.push(sample);
    undo.disabled = false;
    const corrected = sample.feedback.find((one) => one.kind === "correction" && one.replaced_at === null);
    news.replaceChildren(`Saved: ${truthText(truth)}. Version ${sample.version} answered ${saidText(sample.said)}`, compared && " ",
      compared && h("span", { class: "chip", data: { tone: TONES[compared] ?? "" } }, compared), corrected ? ` A caller has corrected it to ${truthText(corrected.truth)}.` : "");
    labelled();
    await advance();
  }

  /** Another window or person may have labelled it meanwhile: the next label replaces that one. */
  function refused(sample, { error, current }) {
    trouble.textContent = current ? `Not saved: this example was labelled ${truthText(current.truth)} in another window meanwhile (${when(current.at)}). Choose a label to replace that, or skip it.`
      : `Not saved: ${error.detail}. Choose again, or skip it.`;
    if (!current) return;
    sample.truth = current.truth;
    control.mark(current.truth);
  }

  async function leave() {
    if (!shown || busy) return;
    if (shown.sample.truth === undefined) list.skip(shown.sample);
    trouble.textContent = news.textContent = "";
    await advance();
  }

  function takeBack() {
    const sample = busy ? undefined : done.pop();
    if (!sample) return;
    undo.disabled = !done.length;
    if (shown) list.putBack(shown.sample);
    trouble.textContent = "";
    show(sample);
    news.textContent = `Choose the right label: it replaces ${truthText(sample.truth)}, which stays in the history. Skip keeps it.`;
  }

  async function end(mine) {
    forget();
    if (element.contains(document.activeElement)) element.focus({ preventScroll: true }); // a disabled button loses it
    asked.hidden = !done.length;
    skip.disabled = true;
    control.allow(false);
    control.mark();
    const text = await atEnd(mine.skipped());
    if (mine === list) say(text, h("button", { type: "button", on: { click: again } }, mine.skipped() ? "Show them again" : "Look again"));
  }

  async function again() {
    list.restart();
    await advance();
  }

  function say(text, ...more) {
    place.replaceChildren(h("p", { class: "nothing-yet" }, text), ...more);
  }

  function fail(error) {
    forget();
    asked.hidden = true;
    const locked = error.status === 401 || error.status === 403;
    const retry = h("button", { type: "button", on: { click: locked ? enterKey : again } }, locked ? "Enter another key" : "Try again");
    say(locked ? `Captured samples may hold what callers sent, so they need a key of scope train. ${error.message}.` : error.message, list && retry);
  }

  /** Request without `quiet`: the page asks for a key. */
  async function enterKey() {
    if (await trying(() => getJson(`${path}/captures?limit=1`))) await label(list);
  }

  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.matches(TYPED_INTO)) return;
    if (event.key === "ArrowRight" && shown) leave();
    else if (event.key === "Backspace") takeBack();
    else if (!shown || !control.press(event.key)) return;
    event.preventDefault();
  }

  return {
    element,
    label,
    say,
    fail,
    stop() {
      list = null;
      forget();
    },
  };
}
