// Explanation panel: feature attributions of an answer, requested when the user switches it on.

import { postBody, throttled } from "./api.js";
import { h } from "./dom.js";
import { figure } from "./format.js";
import { drawGrid, greatestOf, heat } from "./grid.js";

const METHODS = [["gradient", "gradient"], ["integrated_gradients", "integrated gradients"]];
const MOST_NUMBERS = 8; // most numbers described in the text

/**
 * Create a panel with `about(body, type)`, called for each answered body, and `clear()`.
 * `names`: names of the numbers of a sample; `first`: the initial method;
 * `explained(explanation)`: called with each explanation, or null.
 */
export function explainPanel(model, { names = [], first = "gradient", explained = () => {} } = {}) {
  const wanted = h("input", { id: "explain", type: "checkbox" });
  const method = h("select", { id: "method", "aria-label": "Method" }, METHODS.map(([value, text]) => h("option", { value, selected: value === first }, text)));
  const grid = h("canvas", { class: "grid-picture", width: 28, height: 28, role: "img", "aria-label": "Saliency map: how much each pixel influences the answer" });
  const words = h("p", { class: "why", role: "status" });
  const shown = h("div", { class: "shown" }, grid, words);
  const element = h("section", { class: "explain", "aria-label": "Explanation" },
    h("p", { class: "choose" }, wanted, h("label", { for: "explain" }, "Explain the answer"), method), shown);
  let asked = null; // [body, type] of the displayed answer

  const ask = throttled(async () => {
    const about = asked;
    if (!about || !wanted.checked) return;
    if (!words.textContent) words.textContent = "Loading; the first explanation takes a few seconds …";
    try {
      const { explanations } = await postBody(`explain/${model.name}?method=${method.value}`, ...about);
      if (asked === about && wanted.checked) show(explanations[0]);
    } catch (error) {
      if (asked === about) showText(error.message);
    }
  });

  function show(explanation) {
    if (explanation.error) {
      showText(`${explanation.error.title}: ${explanation.error.detail}`);
      return;
    }
    const rows = explanation.saliency && greatestOf(explanation.saliency);
    showText(rows ? `Influence of each pixel on the answer ${explanation.label}: brighter means more.` : inWords(explanation, names));
    grid.hidden = !rows;
    if (rows) drawGrid(grid, rows, heat);
    explained(explanation);
  }

  /** Show text instead of an explanation. */
  function showText(text) {
    grid.hidden = true;
    words.textContent = text;
    explained(null);
  }

  function choose() {
    method.hidden = !wanted.checked;
    shown.hidden = !wanted.checked;
    showText("");
    ask();
  }

  wanted.addEventListener("change", choose);
  method.addEventListener("change", ask);
  choose();
  return {
    element,
    about(...bodyAndType) {
      asked = bodyAndType;
      element.hidden = false;
      ask();
    },
    clear() {
      asked = null;
      element.hidden = true;
      showText("");
    },
  };
}

/** Describe a gradient or an attribution, one clause for each number of the sample. */
function inWords({ label, gradient, attribution }, names) {
  const what = label === undefined ? "the answer" : `the logit of label ${label}`;
  const amounts = flat(gradient ?? attribution, names);
  const each = strongest(amounts.map(([amount]) => amount))
    .map(([amount, at]) => `${signed(amount)} ${gradient ? "per unit of" : "from"} ${amounts[at][1]}`);
  return gradient ? `At this point, ${what} changes by ${each.join(", ")}.` : `Relative to an input of zeros, ${what} gains ${each.join(", ")}.`;
}

/** Return [amount, name] pairs: of the numbers of one sample, or of named inputs. */
function flat(amounts, names) {
  if (Array.isArray(amounts)) return amounts.flat(Infinity).map((amount, at) => [amount, names[at] ?? `number ${at + 1}`]);
  return Object.entries(amounts).flatMap(([input, given]) =>
    Array.isArray(given) ? flat(given, []).map(([amount, name]) => [amount, `${input}, ${name}`]) : [[given, input]]);
}

/** Return [amount, index] pairs in order; of more than MOST_NUMBERS, only the largest. */
function strongest(amounts) {
  const all = amounts.map((amount, at) => [amount, at]);
  const least = amounts.map(Math.abs).sort((a, b) => b - a)[MOST_NUMBERS - 1] ?? 0;
  return all.filter(([amount]) => Math.abs(amount) >= least).slice(0, MOST_NUMBERS);
}

function signed(amount) {
  return amount < 0 ? `−${figure(-amount)}` : `+${figure(amount)}`;
}
