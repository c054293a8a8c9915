// All talk with the service: keys, errors in words, and what happens when it is gone for a while.

const KEY = "torchloop.key";
const PROBE_MS = 1000;

/** An error answer of the service: RFC 9457's title and detail. */
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail ? `${title}: ${detail}` : title);
    this.status = status;
    this.title = title;
    this.detail = detail;
  }
}

/** No answer at all. */
export class Gone extends Error {
  constructor() {
    super("The service does not answer.");
  }
}

/** Tells "gone" and "back". */
export const connection = new EventTarget();

let lost = false;
let askForKey = async () => false;

/** `ask(problem)` asks the reader for a key, saves it, and says whether there is one. */
export function onKeyNeeded(ask) {
  let asking = null;
  askForKey = (problem, sent) => {
    if (savedKey() !== sent) return Promise.resolve(true); // given while this request was under way
    asking ??= ask(problem).finally(() => (asking = null));
    return asking;
  };
}

export function savedKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function saveKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** A response that is well. Raises Problem, Gone, or AbortError. `quiet` asks for no key. */
export async function send(path, { quiet = false, headers = {}, ...options } = {}) {
  for (;;) {
    const key = savedKey();
    const sent = key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
    const response = await reach(path, { ...options, headers: sent });
    if (response.ok) return response;
    const problem = await problemOf(response);
    const locked = problem.status === 401 || problem.status === 403;
    if (!locked || quiet || !(await askForKey(problem, key))) throw problem;
  }
}

async function reach(path, options) {
  try {
    const response = await fetch(path, { cache: "no-store", ...options });
    if (lost && response.ok) found();
    return response;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    lose();
    throw new Gone();
  }
}

async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  return new Problem(response.status, body.title ?? `Error ${response.status}`, body.detail ?? response.statusText);
}

/** The JSON at a path. */
export async function getJson(path, options = {}) {
  return (await send(path, options)).json();
}

/** The answer to a JSON body. */
export async function postJson(path, body, options = {}) {
  const headers = { "Content-Type": "application/json", ...options.headers };
  return (await send(path, { ...options, method: "POST", headers, body: JSON.stringify(body) })).json();
}

/** The answer to a body of any media type: a value for JSON, else bytes. */
export async function postBody(path, body, mediaType = "application/json") {
  return (await sendBody(path, body, mediaType)).json();
}

function sendBody(path, body, mediaType) {
  const content = mediaType === "application/json" ? JSON.stringify(body) : body;
  return send(path, { method: "POST", headers: { "Content-Type": mediaType }, body: content });
}

/** One prediction request: the predictions, which version made them, and how long that took, in ms. */
export async function predict(model, body, mediaType = "application/json") {
  const began = performance.now();
  const response = await sendBody(`predict/${model}`, body, mediaType);
  const { predictions } = await response.json();
  const total = /total;dur=([\d.]+)/.exec(response.headers.get("Server-Timing") ?? "");
  return {
    predictions,
    version: response.headers.get("X-Model-Version"),
    serverMs: total ? Number(total[1]) : null,
    roundMs: performance.now() - began,
  };
}

/** What came as bytes, under an address of its own that an <img> or a download can use. */
export async function asUrl(path) {
  return URL.createObjectURL(await (await send(path)).blob());
}

/** Runs `work` with the newest arguments only: after a short quiet, and never twice at a time. */
export function newest(work, quietMs = 60) {
  let waiting = null;
  let busy = false;
  let timer = 0;
  async function run() {
    timer = 0;
    if (busy || waiting === null) return;
    const given = waiting;
    waiting = null;
    busy = true;
    try {
      await work(...given);
    } finally {
      busy = false;
      if (waiting !== null && !timer) run();
    }
  }
  return (...given) => {
    waiting = given;
    timer ||= setTimeout(run, quietMs);
  };
}

function lose() {
  if (lost) return;
  lost = true;
  connection.dispatchEvent(new Event("gone"));
  setTimeout(probe, PROBE_MS);
}

function found() {
  if (!lost) return;
  lost = false;
  connection.dispatchEvent(new Event("back"));
}

async function probe() {
  try {
    if ((await fetch("health/live", { cache: "no-store" })).ok) found();
  } catch {
    // still gone: ask again
  }
  if (lost) setTimeout(probe, PROBE_MS);
}
