"""Stages and durations as people write them: "shadow 100% for 10m 500 samples, 5% for 1h"."""

import re

from service.client.errors import BadArgument
from service.client.trial_answers import StageOrder, TrialStage

EXAMPLE = "shadow 100% for 10m 500 samples, 5% for 10m, 25% for 1h"
DEFAULT = "shadow 100% for 10m 500 samples, 5% for 10m 200 samples, 25% for 10m 500 samples"  # the service's own
_STAGE = re.compile(
    r"(?P<kind>shadow |canary )? ?(?P<percent>\d+(\.\d+)?) ?% for (?P<time>\S+)(?: (?P<samples>\d+) samples?)?",
    re.IGNORECASE,
)
_SHORT = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", re.IGNORECASE)
_ISO = re.compile(r"P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")


def stages_in(text: str) -> list[StageOrder]:
    """Return the stages that a text describes. Raises BadArgument."""
    return [_stage(part) for part in text.split(",")]


def _stage(text: str) -> StageOrder:
    words = " ".join(text.split())
    found = _STAGE.fullmatch(words)
    if found is None:
        raise BadArgument(f"{words!r} is not a stage; write stages as {EXAMPLE!r}")
    share = float(found["percent"]) / 100
    stage: StageOrder = {"for": duration(found["time"])}
    if (found["kind"] or "").lower().startswith("shadow"):
        stage["shadow"] = share
    else:
        stage["share"] = share
    if found["samples"]:
        stage["samples"] = int(found["samples"])
    return stage


def duration(text: str) -> str:
    """Return a duration such as 90s, 10m, 1h30m or 2d as an ISO 8601 duration. Raises BadArgument."""
    if _ISO.fullmatch(text):
        return text
    found = _SHORT.fullmatch(text)
    if not text or found is None:
        raise BadArgument(f"{text!r} is not a duration; write it as 90s, 10m, 1h30m, 2d or PT10M")
    days, *rest = found.groups()
    date = f"{days}D" if days else ""
    time = "".join(f"{number}{unit}" for number, unit in zip(rest, "HMS", strict=True) if number)
    return f"P{date}T{time}" if time else f"P{date}"


def brief(iso: str) -> str:
    """Return an ISO 8601 duration as people write it: PT1H30M is 1h30m."""
    return iso.removeprefix("P").replace("T", "").lower()


def of_stage(stage: TrialStage) -> str:
    """Return a stage of a trial as people write it."""
    lasts = f"for {brief(stage['for'])} {stage['samples']} samples"
    if stage["share"] is not None:
        return f"{100 * stage['share']:g}% {lasts}"
    return f"shadow {100 * (stage['shadow'] or 0):g}% {lasts}"
