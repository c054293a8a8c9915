// Uploads that have begun and are not finished, kept in localStorage: after a reload of the page they go on.

import { Problem, getJson, send } from "./api.js";

const KEY = `torchloop.uploads ${location.pathname}`; // services under several prefixes share an origin
const here = new Set(); // ids of uploads that this page is sending

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {}; // storage is off, or holds something else
  }
}

function write(uploads) {
  try {
    localStorage.setItem(KEY, JSON.stringify(uploads));
  } catch {
    // storage is off or full: the upload cannot go on after a reload
  }
}

/** Keep an upload: its id, the model, the file's name, size and modified date, what the form says, and `received` bytes. */
export function remember(upload) {
  write({ ...read(), [upload.upload]: upload });
}

export function forget(id) {
  const { [id]: _, ...others } = read();
  write(others);
}

/** Return the uploads of a model that the service still has, with the bytes that it has received. */
export async function unfinished(model) {
  const busy = await inOtherTabs();
  const kept = Object.values(read()).filter((one) => one.model === model && !busy.has(one.upload) && !here.has(one.upload));
  return (await Promise.all(kept.map(asked))).filter(Boolean);
}

/** Return whether `file` is that of an upload, as far as a page can see. */
export function isFileOf(upload, file) {
  return upload.file.name === file.name && upload.file.size === file.size && upload.file.modified === file.lastModified;
}

/** Remove an upload from the service, too. */
export async function discard(id) {
  forget(id);
  await send(`uploads/${id}`, { method: "DELETE", quiet: true });
}

/** Run `work`, during which the upload is not unfinished: not in other tabs either, if the browser has locks (on https, or
 * on this machine).
 */
export async function whileSending(id, work) {
  here.add(id);
  try {
    return await (navigator.locks ? navigator.locks.request(lockOf(id), work) : work());
  } finally {
    here.delete(id);
  }
}

async function asked(upload) {
  try {
    const { received, job } = await getJson(`uploads/${upload.upload}`, { quiet: true });
    if (!job) return { ...upload, received };
    forget(upload.upload); // it was finished, and the answer was lost
  } catch (error) {
    if (!(error instanceof Problem && error.status === 404)) return upload; // no connection, or no key yet
    forget(upload.upload); // it has expired
  }
  return null;
}

async function inOtherTabs() {
  const { held = [] } = (await navigator.locks?.query()) ?? {};
  return new Set(held.map((lock) => lock.name.replace(lockOf(""), "")));
}

function lockOf(id) {
  return `${KEY} ${id}`;
}
