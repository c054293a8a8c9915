"""Why nothing is captured of a prediction."""

from service.data.capture_settings import CaptureSettings, Kept
from service.data.missing import why_missing
from tests.captured import START, prediction

DAY = 86_400.0


def why(days_later: float = 0, **rates: float) -> str:
    settings = {model: Kept(settings=CaptureSettings(rate=rate)) for model, rate in rates.items()}
    return why_missing(prediction(1), settings, START + days_later * DAY)


def test_the_rate_the_header_and_pruning_are_told_apart() -> None:
    assert "no model's answers are captured" in why()
    assert "no model's answers are captured" in why(line=0.0)
    assert "not among the share that is drawn (1e-09 of line)" in why(line=1e-9)
    assert "X-Capture: no" in why(line=1.0)
    assert "is pruned: it is kept for 30 days" in why(31, line=1.0)
