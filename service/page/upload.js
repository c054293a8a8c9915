// Upload of a file in parts. After a lost connection, or a reload of the page, it goes on at the offset that the service names.

import { Problem, Unreachable, getJson, postJson, send } from "./api.js";
import { discard, forget, remember, whileSending } from "./unfinished.js";

const RETRY_MS = 1000;
const LASTING = [400, 404, 413, 422]; // statuses after which an upload cannot go on
const PATIENCE_MS = 60_000; // how long a service may be away before the upload ends

/** Send the file of `order` as a new version of a dataset and return the ingest job. `order.resumed` is an upload of the
 * same file that has begun (see unfinished.js). `onProgress(sent, bytes)` follows each part. `signal` stops the upload, and
 * removes what has arrived. Throws Problem, Unreachable or AbortError; after Unreachable, among others, it can be resumed.
 */
export async function upload(order, onProgress, signal) {
  const begun = order.resumed ? await state(order.resumed.upload, signal) : await begin(order, signal);
  return whileSending(begun.upload, () => sendAll(order, begun, onProgress, signal));
}

async function sendAll({ model, name, file, options, parent, allowRejected }, begun, onProgress, signal) {
  const address = `uploads/${begun.upload}`;
  const kept = { upload: begun.upload, model, name, options, parent, allowRejected, file: { name: file.name, size: file.size, modified: file.lastModified } };
  const arrived = (received, bytes) => {
    remember({ ...kept, received });
    onProgress(received, bytes);
  };
  try {
    await sendParts(address, file, begun, arrived, signal);
    const body = { parent, allow_rejected: allowRejected };
    const job = await patiently(() => postJson(`${address}/finish`, body, { signal }), signal); // a repeat returns the same job
    forget(begun.upload);
    return job;
  } catch (error) {
    const lasting = error.name === "AbortError" || (error instanceof Problem && LASTING.includes(error.status));
    if (lasting) discard(begun.upload).catch(() => {}); // it expires in a day
    throw error;
  }
}

function begin({ model, name, file, options }, signal) {
  const path = `models/${encodeURIComponent(model)}/datasets/${encodeURIComponent(name)}/uploads`;
  return postJson(path, { bytes: file.size, options }, { signal });
}

function state(id, signal) {
  return getJson(`uploads/${id}`, { signal });
}

async function sendParts(address, file, { received, part_bytes: size }, onProgress, signal) {
  let at = received;
  let away = false;
  while (at < file.size) {
    onProgress(at, file.size);
    at = await patiently(async () => {
      if (away) ({ received: at } = await getJson(address, { signal }));
      if (at === file.size) return at;
      away = true; // if the next request fails, ask first how much of it has arrived
      const { received: arrived } = await putPart(`${address}?offset=${at}`, file.slice(at, at + size), signal);
      away = false;
      return arrived;
    }, signal, [409, 503]); // 409: the service has more, or less, of the file
  }
  onProgress(at, file.size);
}

async function putPart(path, body, signal) {
  return (await send(path, { method: "PUT", headers: { "Content-Type": "application/octet-stream" }, body, signal })).json();
}

/** Run `work` again while the service is away, or answers one of `statuses`, for PATIENCE_MS after the first failure. */
async function patiently(work, signal, statuses = [503]) {
  let until = null;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const passes = error instanceof Unreachable || (error instanceof Problem && statuses.includes(error.status));
      until ??= performance.now() + PATIENCE_MS;
      if (!passes || performance.now() > until) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    signal.throwIfAborted();
  }
}
