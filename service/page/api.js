// Requests to the service: API keys, error messages, and retries while the service does not respond.

const KEY = "torchloop.key";
const PROBE_MS = 1000;
const SILENCE_MS = 8000; // a service that does not answer GET /models for so long counts as lost

/** An error response of the service: title and detail of the RFC 9457 problem document. */
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail ? `${title}: ${detail}` : title);
    this.status = status;
    this.title = title;
    this.detail = detail;
  }
}

/** Network error: the service cannot be reached. */
export class Unreachable extends Error {
  constructor() {
    super("The service does not answer.");
  }
}

/** Dispatches the events "lost" and "restored". */
export const connection = new EventTarget();

let lost = false;
let askForKey = async () => false;

/** Set the function that asks the user for a key: `ask(problem)` saves it and returns whether there is one. */
export function onKeyNeeded(ask) {
  let asking = null;
  askForKey = (problem, sent) => {
    if (savedKey() !== sent) return Promise.resolve(true); // a key was entered while this request was running
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

/** Send a request and return the response if it succeeded. Throws Problem, Unreachable or AbortError. `quiet`: do not ask for a key. */
export async function send(path, { quiet = false, headers = {}, ...options } = {}) {
  for (;;) {
    const key = savedKey();
    const sent = key ? { ...headers, Authorization: `Bearer ${key}` } : headers;
    const response = await fetchOnce(path, { ...options, headers: sent });
    if (response.ok) return response;
    const problem = await problemOf(response);
    const locked = problem.status === 401 || problem.status === 403;
    if (!locked || quiet || !(await askForKey(problem, key))) throw problem;
  }
}

async function fetchOnce(path, options) {
  try {
    const response = await fetch(path, { cache: "no-store", ...options });
    if (lost && response.ok) markRestored();
    return response;
  } catch (error) {
    if (error.name === "AbortError" || error.name === "TimeoutError") throw error;
    markLost();
    throw new Unreachable();
  }
}

async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  return new Problem(response.status, body.title ?? `Error ${response.status}`, body.detail ?? response.statusText);
}

/** GET JSON. */
export async function getJson(path, options = {}) {
  return (await send(path, options)).json();
}

/** Return a valid body of a model. A large one has an address of its own. */
export async function exampleOf(model) {
  return model.example ?? getJson(`models/${model.name}/example`);
}

/** GET JSON that the service has at hand. If it is silent, the connection is lost: throws Unreachable. */
export async function getJsonSoon(path, options = {}) {
  try {
    return await getJson(path, { ...options, signal: AbortSignal.timeout(SILENCE_MS) });
  } catch (error) {
    if (error.name !== "TimeoutError") throw error;
    markLost();
    throw new Unreachable();
  }
}

/** GET text. */
export async function getText(path) {
  return (await send(path)).text();
}

/** POST a JSON body. */
export function postJson(path, body, options = {}) {
  return sendJson("POST", path, body, options);
}

/** PUT a JSON body. */
export function putJson(path, body) {
  return sendJson("PUT", path, body);
}

async function sendJson(method, path, body, options = {}) {
  const headers = { "Content-Type": "application/json", ...options.headers };
  return (await send(path, { ...options, method, headers, body: JSON.stringify(body) })).json();
}

/** POST a body of any media type. Returns the parsed JSON. */
export async function postBody(path, body, mediaType = "application/json") {
  return (await sendBody(path, body, mediaType)).json();
}

function sendBody(path, body, mediaType) {
  const content = mediaType === "application/json" ? JSON.stringify(body) : body;
  return send(path, { method: "POST", headers: { "Content-Type": mediaType }, body: content });
}

/** POST a prediction request. Returns the predictions, their id, the version that computed them, and the times in ms. */
export async function predict(model, body, mediaType = "application/json") {
  const began = performance.now();
  const response = await sendBody(`predict/${model}`, body, mediaType);
  const { predictions } = await response.json();
  const total = /total;dur=([\d.]+)/.exec(response.headers.get("Server-Timing") ?? "");
  return {
    predictions,
    id: response.headers.get("X-Prediction-Id"),
    version: response.headers.get("X-Model-Version"),
    serverMs: total ? Number(total[1]) : null,
    roundMs: performance.now() - began,
  };
}

/** GET bytes. Returns an object URL for an <img> or a download. */
export async function asUrl(path, options = {}) {
  return URL.createObjectURL(await (await send(path, options)).blob());
}

/** Throttle `work`: run it with the latest arguments, `pauseMs` after its last start or later, never concurrently with itself. */
export function throttled(work, pauseMs = 60) {
  let waiting = null;
  let busy = false;
  let timer = 0;
  let began = -Infinity;

  function schedule() {
    if (waiting === null || busy) return;
    timer ||= setTimeout(run, Math.max(0, began + pauseMs - performance.now()));
  }

  async function run() {
    timer = 0;
    const latest = waiting;
    waiting = null;
    busy = true;
    began = performance.now();
    try {
      await work(...latest);
    } finally {
      busy = false;
      schedule();
    }
  }

  return (...args) => {
    waiting = args;
    schedule();
  };
}

function markLost() {
  if (lost) return;
  lost = true;
  connection.dispatchEvent(new Event("lost"));
  setTimeout(probe, PROBE_MS);
}

function markRestored() {
  if (!lost) return;
  lost = false;
  connection.dispatchEvent(new Event("restored"));
}

async function probe() {
  try {
    if ((await fetch("health/live", { cache: "no-store", signal: AbortSignal.timeout(SILENCE_MS) })).ok) markRestored();
  } catch {
    // still no response: try again
  }
  if (lost) setTimeout(probe, PROBE_MS);
}
