"""The calls of captures, feedback, accuracy and replay. Nothing here sends anything."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from service.client import capture_answers as answers
from service.client import numbers
from service.client.call import Asking, Call, file_of, get, json_body, list_under, object_with, path
from service.client.errors import BadArgument

T = TypeVar("T")
_PICTURE = file_of("image/")


def capture(model: str) -> Call[answers.CaptureSettings]:
    """Which answers of a model are captured."""
    return get(path("models", model, "capture"), object_with("rate"))


def set_capture(
    model: str,
    rate: float,
    *,
    max_examples: int | None = None,
    max_bytes: int | None = None,
    days: float | None = None,
    originals: bool = False,
) -> Call[answers.CaptureSettings]:
    """Capture a share of the requests; 0: none. Settings that are None have the service's defaults."""
    given = {"rate": rate, "max_examples": max_examples, "max_bytes": max_bytes, "days": days, "originals": originals}
    body = {name: value for name, value in given.items() if value is not None}
    arguments = json_body(body, "settings")
    place = path("models", model, "capture")
    return Call(method="PUT", path=place, read=object_with("rate"), repeatable=True, arguments=arguments)


def captures(
    model: str,
    *,
    unlabelled: bool = False,
    order: answers.Order = "newest",
    version: int | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[answers.CapturePage]:
    """Captured samples, one page. `unlabelled` with `order="random"` is the list of samples to audit."""
    return get(
        path("models", model, "captures"),
        object_with("captures"),
        unlabelled="true" if unlabelled else None,
        order=order,
        version=version,
        limit=limit,
        cursor=cursor,
    )


def erase_captures(
    model: str, *, prediction: str | None = None, key: str | None = None, before: str | None = None
) -> Call[answers.Erased]:
    """Erase captured samples for good: of one prediction, with one X-Prediction-Key, or begun before (ISO 8601)."""
    given = {"id": prediction, "key": key, "before": before}
    arguments = {"params": {name: value for name, value in given.items() if value is not None}}
    place = path("models", model, "captures")
    return Call(method="DELETE", path=place, read=object_with("erased"), repeatable=True, arguments=arguments)


def captured_original(prediction: str, *, index: int = 0, model: str | None = None) -> Call[bytes] | Asking[bytes]:
    """The picture file of a captured sample, as it came. Raises NotFound if it is not kept: see `originals`."""
    return _of_model(prediction, model, lambda name: get(_sample(name, prediction, index, "original"), _PICTURE))


def captured_picture(
    prediction: str, *, index: int = 0, input_name: str | None = None, model: str | None = None
) -> Call[bytes] | Asking[bytes]:
    """A PNG file of a captured sample, as the model's reader has made it; of several pictures, that of an input."""
    return _of_model(
        prediction, model, lambda name: get(_sample(name, prediction, index, "picture.png"), _PICTURE, input=input_name)
    )


def _sample(model: str, prediction: str, index: int, file: str) -> str:
    return path("models", model, "captures", prediction, index, file)


def truth_form(model: str) -> Call[answers.TruthForm]:
    """What a truth of a model is: its outputs, with their labels."""
    return get(path("models", model, "feedback"), object_with("outputs"))


def send_feedback(model: str, entries: Sequence[Mapping[str, Any]]) -> Call[list[answers.FeedbackResult]]:
    """Send 1 to 1,000 entries: {"id" or "key", "index", "truth", "kind", "order", "replace", "by"}. Each fails alone.

    A repeat adds nothing.
    """
    if isinstance(entries, str | bytes | Mapping):
        raise BadArgument('entries must be a list of dicts such as {"id": ..., "truth": 7}')
    arguments = json_body({"feedback": numbers.listed(entries)}, "feedback")
    place = path("models", model, "feedback")
    return Call(method="POST", path=place, read=list_under("results"), repeatable=True, arguments=arguments)


def feedback(
    prediction: str,
    truth: Any,
    *,
    model: str | None = None,
    index: int = 0,
    kind: answers.Kind = "correction",
    by: str | None = None,
) -> Call[list[answers.FeedbackResult]] | Asking[list[answers.FeedbackResult]]:
    """Tell the truth about one answer, by its id. Without `model`, the capture names it, which needs scope train."""
    entry = {"id": prediction, "truth": truth, "index": index, "kind": kind, **({} if by is None else {"by": by})}
    return _of_model(prediction, model, lambda name: send_feedback(name, [entry]))


def _of_model(prediction: str, model: str | None, make: Callable[[str], Call[T]]) -> Call[T] | Asking[T]:
    """Return the call for a model; if it is None, ask first which one made the captured prediction."""
    if model is not None:
        return make(model)
    return Asking(get(path("predictions", prediction), object_with("model")), lambda found: make(_name(found)))


def _name(found: Mapping[str, Any]) -> str:
    name = found["model"]
    if not isinstance(name, str):
        raise BadArgument("the prediction names no model: give it as `model`")
    return name


def accuracy(model: str, version: int, *, window: str | None = None) -> Call[answers.Accuracy]:
    """How right a version was over the last minutes, hours or days, such as "7d", by audits and outcomes."""
    return get(path("models", model, "versions", version, "accuracy"), object_with("captured"), window=window)


def prediction(prediction_id: str) -> Call[answers.Prediction]:
    """Return the captured samples of one prediction. Raises NotFound with the reason if there are none."""
    return get(path("predictions", prediction_id), object_with("samples"))


def replay(prediction_id: str) -> Call[answers.Replay]:
    """Have a captured prediction computed again by its version, and compared."""
    place = path("predictions", prediction_id, "replay")
    return Call(method="POST", path=place, read=object_with("same"), repeatable=True)
