"""Why nothing is captured of a prediction."""

from collections.abc import Mapping

from service.data.capture_retention import DAY_S
from service.data.capture_settings import Kept
from service.data.sampled import is_drawn
from service.telemetry.ids import begun_at, stem_of


def why_missing(prediction: str, settings: Mapping[str, Kept], now: float) -> str:
    """Say why a prediction was not captured, as far as the settings tell: an id does not name its model."""
    rates = {model: kept.settings.rate for model, kept in settings.items() if kept.settings.rate > 0}
    ways = "; PUT /models/{model}/capture sets which answers are captured"
    if not rates:
        return f"prediction {prediction} was not captured: no model's answers are captured{ways}"
    drawn = [model for model, rate in rates.items() if is_drawn(stem_of(prediction), rate)]
    if not drawn:
        shares = ", ".join(f"{rate:g} of {model}" for model, rate in sorted(rates.items()))
        return f"prediction {prediction} was not captured: it is not among the share that is drawn ({shares}){ways}"
    days = max(settings[model].settings.days for model in drawn)
    if begun_at(prediction) < now - days * DAY_S:
        return f"what was captured of prediction {prediction} is pruned: it is kept for {days:g} days"
    return (
        f"nothing is captured of prediction {prediction}: it was sent with X-Capture: no, or is of a model that is not "
        "captured, or it was refused, or there was no room for it, or it was pruned by count or bytes, or it will be "
        "written within a second"
    )
