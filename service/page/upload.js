// Upload of a file in parts. After a lost connection it goes on at the offset that the service names.

import { Problem, Unreachable, getJson, postJson, send } from "./api.js";

const RETRY_MS = 1000;
const PATIENCE_MS = 60_000; // how long a service may be away before the upload ends

/** Send `file` as a new version of the dataset `name` and return the ingest job. `onProgress(sent, bytes)` follows each
 * part. `signal` stops it, and removes what has arrived. Throws Problem, Unreachable or AbortError.
 */
export async function upload({ model, name, file, options, parent, allowRejected }, onProgress, signal) {
  const path = `models/${encodeURIComponent(model)}/datasets/${encodeURIComponent(name)}/uploads`;
  const begun = await postJson(path, { bytes: file.size, options }, { signal });
  const address = `uploads/${begun.upload}`;
  try {
    await sendParts(address, file, begun, onProgress, signal);
    const body = { parent, allow_rejected: allowRejected };
    return await patiently(() => postJson(`${address}/finish`, body, { signal }), signal); // a repeat returns the same job
  } catch (error) {
    if (!(error instanceof Unreachable)) send(address, { method: "DELETE", quiet: true }).catch(() => {}); // it expires in a day
    throw error;
  }
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
