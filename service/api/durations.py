"""Durations as ISO 8601 writes them, without years and months: P1DT2H, PT10M, PT0.5S."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from service.api.written import Form

PATTERN = r"^P([0-9]{1,4}D)?(T([0-9]{1,5}H)?([0-9]{1,6}M)?([0-9]{1,8}(\.[0-9]{1,3})?S)?)?$"
_UNITS = {"D": 86_400, "H": 3_600, "M": 60, "S": 1}


def seconds_in(duration: str) -> float:
    """Return the seconds of a duration that matches PATTERN."""
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9.]+)([DHMS])", duration))


def seconds_of_window(window: str) -> float:
    """Return the seconds of a window, such as 30m, 1h or 7d."""
    return float(int(window[:-1]) * _UNITS[window[-1].upper()])


def duration_of(seconds: float) -> str:
    """Return seconds as a duration, to the millisecond."""
    left, parts = round(seconds, 3), ""
    for unit in "DHM":
        number, left = divmod(left, _UNITS[unit])
        parts += ("T" if unit == "H" and "T" not in parts else "") + (f"{number:.0f}{unit}" if number else "")
    parts += f"{left:.3f}".rstrip("0").rstrip(".") + "S" if round(left, 3) else ""
    return "P" + parts.removesuffix("T") if parts.strip("T") else "PT0S"


def _not_zero(duration: str) -> str:
    if not seconds_in(duration):
        raise ValueError("must be a duration of more than 0 seconds, such as PT10M")
    return duration


Duration = Annotated[
    str,
    Form(PATTERN, "must be an ISO 8601 duration in days, hours, minutes and seconds, such as P7D, PT6H or PT10M"),
    Field(examples=["PT10M"], description="ISO 8601 duration"),
    AfterValidator(_not_zero),
]
