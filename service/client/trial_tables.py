"""Text output of a trial: its stages with their counts, the evidence, and samples that were answered differently."""

import json
from collections.abc import Mapping
from typing import Any

from service.client.stages import brief, of_stage
from service.client.tables import say, table
from service.client.trial_answers import TRIAL_FINAL, ArmCounts, StageEvidence, Trial

_FEW = 5  # differing samples
_LONGEST = 60  # characters of an answer


def trial(found: Trial) -> None:
    """Print a trial."""
    place = f"stage {found['stage'] + 1} of {len(found['stages'])}"
    versions = f"version {found['version']}, live is version {found['live']}"
    if found["state"] in TRIAL_FINAL:
        versions = f"version {found['version']}, live was version {found['live']}"
    state = found["state"].replace("_", " ")
    say(f"trial {found['id']} of {found['model']}: {versions}: {state}, {place}")
    say(found["evidence"]["next"])
    _stages(found)
    _conditions(found)
    _differences(found)
    if late := found.get("waiting_for"):
        say(f"not yet everywhere: {', '.join(late)}")


def _stages(found: Trial) -> None:
    counted = {one["stage"]: one for one in found["evidence"]["stages"]}
    rows = []
    for number, stage in enumerate(found["stages"]):
        arms = counted[number]["arms"] if number in counted else {}
        candidate = next((counts for arm, counts in arms.items() if arm != "live"), None)
        mark = ">" if number == found["stage"] and found["state"] not in TRIAL_FINAL else ""
        rows.append((f"{number + 1}{mark}", of_stage(stage), *_counts(candidate), _agreement(counted.get(number))))
        if "live" in arms:
            rows.append(("", "live", *_counts(arms["live"]), ""))
    table(("stage", "", "requests", "samples", "errors", "keys", "p95 ms", "dropped", "answered alike"), rows)


def _counts(of: ArmCounts | None) -> tuple[Any, ...]:
    if of is None:
        return ("",) * 6
    p95 = "" if of["latency_ms"] is None else f"{of['latency_ms']['p95']:.3g}"
    return of["requests"], of["samples"], of["errors"], of["keys"], p95, of["dropped"] or ""


def _agreement(of: StageEvidence | None) -> str:
    pairs = of["agreed"] + of["differed"] if of else 0
    return f"{of['agreed']} of {pairs}" if of and pairs else ""


def _conditions(found: Trial) -> None:
    rows = [
        (
            one["condition"],
            one["outcome"],
            "" if one["e_value"] is None else f"{one['e_value']:.3g}",
            "" if one["limit"] is None else f"{one['limit']:g}",
            one["detail"],
        )
        for one in found["evidence"]["conditions"]
    ]
    if rows:
        table(("condition", "outcome", "evidence", "limit", "summary"), rows)
    if found["state"] not in TRIAL_FINAL and found["max"] is not None:
        say(f"it lasts at most {brief(found['max'])}; undecided, it is to {found['when_undecided'].replace('_', ' ')}")


def _differences(found: Trial) -> None:
    rows = [
        (f"{one['id']}[{one['index']}]", _answer(one["live"]), _answer(one["candidate"]), one["better"] or "")
        for one in found["evidence"]["differences"][:_FEW]
    ]
    if rows:
        table(("differing sample", f"version {found['live']}", f"version {found['version']}", "right"), rows)


def _answer(value: Any) -> str:
    """Return the fields of an answer that are not lists; of other answers, the beginning of their JSON."""
    if isinstance(value, Mapping) and "error" not in value:
        fields = {name: one for name, one in value.items() if not isinstance(one, list | dict)}
        if fields:
            pairs = (f"{name} {one:.4g}" if isinstance(one, float) else f"{name} {one}" for name, one in fields.items())
            return " ".join(pairs)[:_LONGEST]
    return json.dumps(value)[:_LONGEST]
