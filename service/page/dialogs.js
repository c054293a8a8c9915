// Dialogs and notifications: confirmations, the API key, messages.

import { saveKey, savedKey } from "./api.js";
import { h } from "./dom.js";

const NOTICE_MS = 9000;

/** Show a notification for NOTICE_MS; for an error, its message. */
export function notify(message) {
  const text = message instanceof Error ? message.message : message;
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Dismiss" }, "×");
  const notice = h("div", { class: message instanceof Error ? "notice bad" : "notice" }, h("span", {}, text), close);
  close.addEventListener("click", () => notice.remove());
  document.getElementById("notices").append(notice);
  setTimeout(() => notice.remove(), NOTICE_MS);
}

/** Run `work` and return its result. If it throws, show the error and return undefined. */
export async function trying(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") notify(error);
    return undefined;
  }
}

/** Ask for confirmation. Returns true if the user confirms. */
export function confirmed(title, text, action) {
  return openDialog(title, [h("p", {}, text)], action, () => true).then((answer) => answer === true);
}

/** Ask for confirmation and a reason, which may be empty. Returns the reason, or null if the user cancels. */
export function reasoned(title, text, action) {
  const field = h("input", { id: "reason-field", autocomplete: "off", maxlength: "1000" });
  return openDialog(title, [h("p", {}, text), h("label", { for: "reason-field" }, "Reason, for the history"), field], action, () => field.value.trim());
}

/** Ask for an API key because of `problem`. Returns true if one was entered. It is stored for this tab only. */
export async function askKey(problem) {
  const field = h("input", { id: "key-field", type: "password", autocomplete: "off", required: true, spellcheck: "false",
    pattern: "[!-~]+", title: "only visible ASCII characters, without spaces" });
  const body = [
    h("p", {}, savedKey() && problem.status === 401 ? "The key in use is not valid for this service." : `${problem.title}: ${problem.detail}.`),
    h("label", { for: "key-field" }, "Key"),
    field,
    h("p", { class: "help" }, "It is stored for this tab only and sent with each request."),
  ];
  const key = await openDialog("This service needs an API key", body, "Use this key", () => field.value.trim(), "key-dialog");
  if (key) saveKey(key);
  return Boolean(key);
}

/** Show a picture as wide as the screen; a click, a tap or Enter switches to full size, with scroll bars. */
export function showPicture(title, url) {
  const zoom = h("button", { type: "button", class: "zoom", "aria-pressed": "false", "aria-label": `${title}: full size` },
    h("img", { src: url, alt: title }));
  const frame = h("div", { class: "frame" }, zoom);
  zoom.addEventListener("click", () => zoom.setAttribute("aria-pressed", String(frame.classList.toggle("full"))));
  return openDialog(title, [frame, h("p", { class: "help" }, "Click or tap the picture for full size.")], null, () => true, "wide");
}

/** Show a sentence, a text to copy, and what else there is. */
export function showText(title, sentence, text, more = null) {
  return openDialog(title, [h("p", {}, sentence), h("pre", { tabindex: "0" }, text), more && h("p", { class: "more" }, more)], null, () => true, "wide");
}

/** Close the dialogs of a section that is left, as if they were cancelled. The one that asks for a key stays. */
export function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog:not(.key-dialog)")) dialog.close();
}

/** Open a modal dialog. Returns the value of its action, or null. If `value()` throws, the dialog shows the error and stays. */
export function openDialog(title, body, action, value, size = "") {
  const trouble = h("p", { class: "trouble", role: "alert" });
  const cancel = h("button", { type: "button" }, action ? "Cancel" : "Close");
  const form = h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), body, trouble,
    h("p", { class: "actions" }, cancel, action && h("button", { class: "main" }, action)));
  const dialog = h("dialog", { "aria-labelledby": "dialog-title", class: size }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    let answer = null;
    let busy = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (busy) return;
      busy = true;
      trouble.textContent = "";
      try {
        answer = await value();
        dialog.close();
      } catch (error) {
        trouble.textContent = error.message;
      } finally {
        busy = false;
      }
    });
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
  });
}
