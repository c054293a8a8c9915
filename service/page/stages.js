// The stages of a trial as a track: what is done, what runs, what comes, and how much of its time and samples is reached.

import { h } from "./dom.js";
import { grouped } from "./counts.js";
import { lasting, secondsIn, words } from "./format.js";
import { meter } from "./meter.js";

const ENDS = { promoted: "done", rolled_back: "failed", aborted: "ended" };

/** Create the track of a trial. */
export function stageTrack(trial) {
  return h("ol", { class: "stages", "aria-label": "Stages" }, trial.stages.map((stage, at) => item(trial, stage, at)));
}

/** Describe a stage: "shadow, 100 %". */
export function nameOf({ shadow, share }) {
  return shadow === null ? `canary, ${shareText(share)}` : `shadow, ${shareText(shadow)}`;
}

/** Say what an open trial does now: who gets whose answers. */
export function meaning({ state, stage, stages, version, live, key_header: header }) {
  const { shadow, share } = stages[stage];
  const paused = state === "paused" ? " The clock of the stage stands still." : "";
  if (shadow !== null && paused) return `Callers get the answers of version ${live} only, and version ${version} computes nothing meanwhile.${paused}`;
  if (shadow !== null) return `In a shadow version ${version} computes ${shareText(shadow)} of the requests again, and callers get the answers of version ${live} only.`;
  return `In a canary version ${version} answers ${shareText(share)} of the ${header ? `callers, told apart by ${header},` : "requests"} and version ${live} the others.${paused}`;
}

/** 0.05 -> "5 %". */
function shareText(share) {
  return `${Number((share * 100).toPrecision(4))} %`;
}

function item(trial, stage, at) {
  const place = placeOf(trial, at);
  return h("li", { class: "stage", data: { place }, "aria-current": place === "now" || place === "paused" ? "step" : null },
    h("p", { class: "stage-name" }, h("strong", {}, `${at + 1}. ${nameOf(stage)}`), h("span", { class: "help" }, place)),
    bars(trial, stage, at, place));
}

function placeOf(trial, at) {
  const { state, stage } = trial;
  if (at < stage) return (samplesOf(trial, at) ?? 0) < trial.stages[at].samples ? "skipped" : "done";
  if (at > stage) return state in ENDS ? "not reached" : "next";
  return ENDS[state] ?? (state === "paused" ? "paused" : "now");
}

function bars(trial, stage, at, place) {
  const seconds = secondsIn(stage.for);
  const seen = samplesOf(trial, at);
  if (seen === null) return h("p", { class: "help" }, `at least ${lasting(seconds)} and ${grouped(stage.samples)} samples`);
  const runs = place === "now" || place === "paused"; // how long the others took is in the history
  const spent = seconds - trial.evidence.seconds_left;
  return [
    runs && meter({ label: "Time", about: `Stage ${at + 1}`, part: spent / seconds, tone: spent >= seconds ? "good" : "", text: `${lasting(spent)} of ${lasting(seconds)}` }),
    meter({ label: "Samples", about: `Stage ${at + 1}`, part: seen / stage.samples, tone: seen >= stage.samples ? "good" : "", text: `${grouped(seen)} of ${grouped(stage.samples)}` }),
  ];
}

/** Return how many samples the candidate has had in a stage; null if it was not reached. */
function samplesOf({ evidence }, at) {
  const counted = evidence.stages.find((one) => one.stage === at);
  return counted ? (counted.arms.candidate ?? counted.arms.shadow).samples : null;
}

/** Describe where a trial stands, for its headline: "canary, stage 2 of 3". */
export function standing({ state, stage, stages }) {
  return `${words(state)}, stage ${stage + 1} of ${stages.length}`;
}
