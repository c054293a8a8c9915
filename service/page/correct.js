// Corrects an answer: the right label or value is sent as feedback on it.

import { postJson } from "./api.js";
import { h } from "./dom.js";
import { truthText } from "./said.js";
import { truthControl, truthForm } from "./truth.js";

const MATCHED = {
  captured: "Its sample was captured, so that the model can learn from it.",
  "not yet": "If its sample is captured, the model can learn from it.",
  "version only": "Its sample was not captured, so the model cannot learn from it. Audit shows what is captured.",
};

/** Create a panel with `about(id)`: the id of the answer that is shown, null: none. */
export function correctionPanel(model) {
  const place = h("div", { hidden: true });
  const open = h("button", { type: "button", class: "small", "aria-expanded": "false", on: { click: toggle } }, "Wrong? Correct it");
  const news = h("p", { class: "help", role: "status" });
  const trouble = h("p", { class: "trouble", role: "alert" });
  const element = h("section", { class: "correct", "aria-label": "Correction", hidden: true }, open, place, trouble, news);
  let control = null;
  let asked = null; // id of the answer

  function about(id) {
    if (id === asked) return;
    asked = id;
    element.hidden = id === null;
    trouble.textContent = news.textContent = "";
    if (id === null) close(); // else it stays open: what is told then is about the answer that is shown
  }

  function close() {
    place.hidden = true;
    open.setAttribute("aria-expanded", "false");
  }

  async function toggle() {
    if (!place.hidden) {
      close();
      return;
    }
    trouble.textContent = "";
    try {
      control ??= truthControl(model, await truthForm(model), tell);
    } catch (error) {
      trouble.textContent = error.message;
      return;
    }
    control.mark();
    place.replaceChildren(h("p", { class: "help" }, "What is right?"), control.element);
    place.hidden = false;
    open.setAttribute("aria-expanded", "true");
  }

  async function tell(truth) {
    const id = asked;
    control.allow(false);
    trouble.textContent = "";
    try {
      const [result] = (await postJson(`models/${encodeURIComponent(model.name)}/feedback`, { feedback: [{ id, truth }] })).results;
      if (asked !== id) return;
      if (!result.accepted) {
        trouble.textContent = `${result.error.title}: ${result.error.detail}`;
        return;
      }
      close();
      open.focus();
      news.textContent = `Saved as a correction: ${truthText(truth)}. ${MATCHED[result.matched]}`;
    } catch (error) {
      if (asked === id) trouble.textContent = error.message;
    } finally {
      control.allow(true);
    }
  }

  return { element, about };
}
