"""Answers and truths in comparable form: the label and its probability, or the value, of each output."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from models.errors import InvalidInput, shown
from models.signature import Output, listed
from models.spec import ModelSpec, Prediction

Said = Mapping[str, Mapping[str, Any]]  # output ("" if it has no name) -> {"label", "probability"} or {"value"}
Describe = Callable[[Any], Sequence[Prediction]]
ONLY = ""  # name of the output of an answer with one label or value
_LARGEST = float(np.finfo(np.float32).max)
_MOST_NUMBERS = 10_000  # of a truth
_MOST_LABELS = 10_000  # that are looked up by `describe`
_LONGEST = 1_000  # characters of a label


class Outcome(NamedTuple):
    """How an answer compares with its truth: whether its labels are right, and the mean absolute error of its values.

    None without labels, or without values.
    """

    was_right: bool | None
    error: float | None


@dataclass(frozen=True, slots=True)
class Part:
    """One output of a model, as truths are checked by it. `labels` is None if they are not known."""

    kind: Literal["label", "value", "array"]
    labels: Sequence[Any] | None = None
    shape: tuple[int | None, ...] = ()

    def checked(self, truth: Any) -> Any:
        """Return the truth in the form in which the model answers. Raises InvalidInput."""
        if self.kind == "value":
            return _number(truth)
        return self._label(truth) if self.kind == "label" else _array(truth, self.shape)

    def _label(self, truth: Any) -> Any:
        text = label_text(truth)
        if text is None or not text or len(text) > _LONGEST or "\0" in text or not _is_unicode(text):
            raise InvalidInput("Wrong truth", "the truth must be a label: a text, or a whole number")
        if self.labels is None:
            return truth
        for label in self.labels:
            if label_text(label) == text:
                return label
        known = listed(self.labels)
        raise InvalidInput("Unknown label", f"{shown(text)!r} is none of the model's labels: {known}")


Form = Mapping[str, Part]


def form_of(
    spec: ModelSpec, prediction: Prediction | None = None, describe: Describe | None = None, k: int = 0
) -> Form:
    """Return the outputs of a model whose truths can be reported.

    prediction  one of the model's; without it, the names of its fields decide
    describe    with `k`, finds the labels of values (N, k): those of the answers to values with one 1 and else 0
    """
    if spec.outputs and spec.describe is None:
        return {name: _part_of(output) for name, output in spec.outputs.items()}
    fields = getattr(spec.prediction, "__annotations__", {}) if prediction is None else prediction
    if "label" in fields:
        return {ONLY: Part("label", _labels(spec, describe, k))}
    if prediction is None:
        return {ONLY: Part("value")} if len(fields) == 1 else {name: Part("value") for name in fields}
    found = {
        name: Part("value" if _is_number(value) else "label") for name, value in prediction.items() if _told(value)
    }
    return {ONLY: next(iter(found.values()))} if len(prediction) == 1 and found else found


def checked(truth: Any, form: Form) -> Any:
    """Return a truth in the form in which it is stored: bare for a model of one output, else a mapping by output.

    Raises InvalidInput.
    """
    if len(form) == 1:
        ((name, part),) = form.items()
        return part.checked(truth[name] if isinstance(truth, dict) and truth.keys() == {name} else truth)
    if not form:
        raise InvalidInput("No truths", "the answers of this model have neither labels nor values to be compared")
    if not isinstance(truth, dict) or not truth:
        raise InvalidInput("Wrong truth", f"the truth must be an object with some of {listed(list(form))}")
    if unknown := next((name for name in truth if name not in form), None):
        raise InvalidInput("Wrong truth", f"{shown(unknown)!r} is no output; the outputs are {listed(list(form))}")
    return {name: _named(name, form[name], value) for name, value in truth.items()}


def said_of(spec: ModelSpec, prediction: Prediction) -> dict[str, dict[str, Any]]:
    """Return the labels and numbers of a prediction, as JSON values."""
    if spec.outputs and spec.describe is None:
        parts = {name: _said_by(output, prediction[name]) for name, output in spec.outputs.items()}
        return {name: part for name, part in parts.items() if part}
    if "label" in prediction:
        found = {"label": _plain(prediction["label"])}
        if _is_number(prediction.get("probability")):
            found["probability"] = float(prediction["probability"])
        return {ONLY: found}
    told = {
        name: {"value": float(value)} if _is_number(value) else {"label": _plain(value)}
        for name, value in prediction.items()
        if _told(value)
    }
    return {ONLY: next(iter(told.values()))} if len(prediction) == 1 and told else told


def probability_of(said: Said) -> float | None:
    """Return the probability of the answered label; of several outputs the least one."""
    return min((part["probability"] for part in said.values() if "probability" in part), default=None)


def compared(said: Said, truth: Any) -> Outcome:
    """Compare an answer with its stored truth."""
    several = isinstance(truth, dict)
    pairs = [(said[name], truth[name]) for name in truth if name in said] if several else _only(said, truth)
    labels = [label_text(part["label"]) == label_text(told) for part, told in pairs if "label" in part]
    errors = [abs(part["value"] - told) for part, told in pairs if "value" in part and _is_number(told)]
    return Outcome(all(labels) if labels else None, math.fsum(errors) / len(errors) if errors else None)


def label_text(label: Any) -> str | None:
    """Return a label as text: 3, 3.0 and "3" are the same; None for another type."""
    if isinstance(label, bool | np.bool_):
        return "true" if label else "false"
    if isinstance(label, float | np.floating):
        number = float(label)
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else None
    return str(label).strip() if isinstance(label, str | int | np.integer) else None


def _only(said: Said, truth: Any) -> list[tuple[Mapping[str, Any], Any]]:
    return [(part, truth) for part in said.values()] if len(said) == 1 else []


def _named(name: str, part: Part, value: Any) -> Any:
    try:
        return part.checked(value)
    except InvalidInput as err:
        raise InvalidInput(err.title, f"{name}: {err.detail}") from err


def _part_of(output: Output) -> Part:
    if output.labels and len(output.shape) == 1:
        return Part("label", output.labels)
    return Part("array", shape=output.shape) if output.shape else Part("value")


def _said_by(output: Output, value: Any) -> dict[str, Any]:
    if output.labels and len(output.shape) == 1:
        numbers = np.asarray(value, np.float64)
        place = int(numbers.argmax())
        said: dict[str, Any] = {"label": output.labels[place]}
        if numbers.min() >= 0 and numbers.max() <= 1:
            said["probability"] = float(numbers[place])
        return said
    return {} if output.shape or not _is_number(value) else {"value": float(value)}


def _labels(spec: ModelSpec, describe: Describe | None, k: int) -> Sequence[Any] | None:
    """Return the labels of a model whose answers have a `label`, if they can be found."""
    if describe is None or spec.outputs or not 0 < k <= _MOST_LABELS:
        return None
    try:
        found = [_plain(prediction["label"]) for prediction in describe(np.eye(k, dtype=np.float32))]
    except Exception:  # noqa: BLE001 - a model author's code, which need not take such values
        return None
    return found if len({label_text(label) for label in found}) == k else None


def _told(value: Any) -> bool:
    return _is_number(value) or isinstance(value, str | bool | np.bool_)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _number(truth: Any) -> float:
    if not _is_number(truth) or not -_LARGEST <= truth <= _LARGEST:
        raise InvalidInput("Wrong truth", "the truth must be a finite number")
    return float(truth)


def _array(truth: Any, shape: tuple[int | None, ...]) -> Any:
    wanted = [size if size is not None else "any" for size in shape]
    try:
        array = np.asarray(truth)
        if array.dtype.kind not in "fiu" or array.size > _MOST_NUMBERS or not np.isfinite(array).all():
            raise ValueError("no numbers")
    except (ValueError, TypeError, OverflowError) as err:
        raise InvalidInput("Wrong truth", f"the truth must be finite numbers in shape {wanted}") from err
    if array.ndim != len(shape) or any(size not in {None, have} for size, have in zip(shape, array.shape, strict=True)):
        raise InvalidInput("Wrong truth", f"the truth has shape {list(array.shape)}; it must be {wanted}")
    return truth


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
