// Server-sent events read with fetch, because EventSource cannot send an Authorization header.

import { Problem, send } from "./api.js";

const RECONNECT_MS = 1000;
const FINAL = new Set(["succeeded", "failed", "cancelled", // of jobs, and of trials:
  "promoted", "rolled_back", "aborted"]);

export function isFinal(state) {
  return FINAL.has(state);
}

/** Call `onEvent(kind, data)` for each event of a job or trial, at `path`, until it ends; after a lost connection, resume with Last-Event-ID. */
export async function follow(path, onEvent, signal) {
  let last = "";
  while (!signal.aborted) {
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const response = await send(path, { headers, signal });
      if (response.status === 204) return; // it has ended, and there is no other event
      for await (const event of parsed(response.body)) {
        last = event.id || last;
        const data = JSON.parse(event.data);
        onEvent(event.event, data);
        if (event.event === "state" && FINAL.has(data.state)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status < 500) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
  }
}

async function* parsed(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").filter((line) => !line.startsWith(":")).map(pair));
      if (fields.data) yield fields;
    }
  }
}

function pair(line) {
  const at = line.indexOf(": ");
  return [line.slice(0, at), line.slice(at + 2)];
}
