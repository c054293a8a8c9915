"""Reference of a version: the distributions of features in its training split, and of answers in its validation split.

It is made when the version is trained, or when it is uploaded and evaluated, and kept in its record. Counts of what the
version has answered since then have the same bins.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.artifacts import Artifacts
from models.drift import answers
from models.drift.distribution import Counts, Distribution
from models.drift.features import MOST, features_of, labels_of
from models.samples import Batch
from models.spec import ModelSpec

LEAST = 50  # samples of a split; fewer have no distribution
_MOST = MOST + 32  # distributions
Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReference:
    """The distributions of a version, and the mean probability of its labels in the validation split, if it has any."""

    distributions: tuple[Distribution, ...]
    confidence: float | None = None

    @classmethod
    def of_json(cls, given: Mapping[str, Any]) -> Self:
        """Return the reference in a record. Raises ValueError if there is none, with the reason, or a malformed one."""
        if fault := given.get("fault"):
            raise ValueError(str(fault)[:300])
        listed, confidence = given.get("distributions"), given.get("confidence")
        if not isinstance(listed, list) or not 0 < len(listed) <= _MOST:
            raise ValueError("it was trained by a release that kept none, or was uploaded and could not be evaluated")
        found = tuple(map(Distribution.of_json, listed))
        if len({(one.kind, one.name) for one in found}) < len(found):
            raise ValueError("two of its distributions have the same name")
        if confidence is not None and (not isinstance(confidence, int | float) or not 0 <= confidence <= 1.001):
            raise ValueError("its mean confidence is no probability")
        return cls(distributions=found, confidence=confidence)

    def as_json(self) -> Mapping[str, Any]:
        """Return it for the record."""
        mean = {} if self.confidence is None else {"confidence": round(self.confidence, 6)}
        return {"distributions": [one.as_json() for one in self.distributions], **mean}


@dataclass(slots=True)
class DriftCounts:
    """Samples that a version has answered, counted in the bins of each distribution of its reference.

    `confidence` is the sum over `answers` labels.
    """

    samples: int
    parts: list[Counts]
    confidence: float = 0.0
    answers: int = 0

    def __add__(self, other: "DriftCounts") -> "DriftCounts":
        return DriftCounts(
            self.samples + other.samples,
            [one + more for one, more in zip(self.parts, other.parts, strict=True)],
            self.confidence + other.confidence,
            self.answers + other.answers,
        )

    @classmethod
    def none(cls, reference: DriftReference) -> "DriftCounts":
        """Return counts of nothing."""
        return cls(0, [np.zeros(one.size, np.int64) for one in reference.distributions])

    @classmethod
    def of_json(cls, given: Mapping[str, Any]) -> "DriftCounts":
        """Return the counts that `as_json` wrote."""
        parts = [np.array(part, np.int64) for part in given["parts"]]
        return cls(given["samples"], parts, given["confidence"], given["answers"])

    def as_json(self) -> Mapping[str, Any]:
        """Return them for the database."""
        parts = [part.tolist() for part in self.parts]
        return {"samples": self.samples, "parts": parts, "confidence": self.confidence, "answers": self.answers}


def counted(spec: ModelSpec, reference: DriftReference, samples: Batch, values: Batch) -> DriftCounts:
    """Count N samples and their values. A feature that the code no longer has is not counted.

    Raises whatever the spec's `features` raises.
    """
    features = features_of(spec)(samples)
    labelled = {one.name: one for one in reference.distributions if one.kind == "answer" and one.labels}
    found = answers.measured(values, labelled)
    of_answers = {**found.numbers, **found.codes}
    counts = DriftCounts.none(reference)
    for place, one in enumerate(reference.distributions):
        numbers = (features if one.kind == "feature" else of_answers).get(one.name)
        if numbers is not None:
            counts.parts[place] = one.place(numbers)
    counts.samples = len(samples)
    if found.confidence is not None:
        sure = found.confidence[np.isfinite(found.confidence)]
        counts.confidence, counts.answers = float(sure.sum(dtype=np.float64)), len(sure)
    return counts


@dataclass(slots=True)
class _Gathered:
    """Measures of parts of a split, by name."""

    parts: dict[str, list[Array]] = field(default_factory=dict)

    def add(self, measures: Mapping[str, Array]) -> None:
        for name, numbers in measures.items():
            self.parts.setdefault(name, []).append(np.asarray(numbers))

    def joined(self) -> dict[str, Array]:
        return {name: np.concatenate(parts) for name, parts in self.parts.items()}


def measured(
    spec: ModelSpec, train: Iterable[Batch], validation: Iterable[Batch], artifacts: Artifacts
) -> DriftReference:
    """Return the reference: `train` are samples in parts, `validation` values of answers in parts.

    Raises ValueError if there are too few of both, and whatever the spec's `features` raises.
    """
    function, gathered = features_of(spec), _Gathered()
    for part in train:
        gathered.add(function(part))
    of_answers, confidence = _of_answers(spec, list(validation), artifacts)
    found = [*_of_features(spec, gathered.joined()), *of_answers]
    if not found:
        raise ValueError(f"its splits have fewer than {LEAST} samples, or nothing that can be counted")
    return DriftReference(distributions=tuple(found), confidence=confidence)


def _of_features(spec: ModelSpec, features: Mapping[str, Array]) -> list[Distribution]:
    labels = labels_of(spec)
    found = [_distribution("feature", name, numbers, labels.get(name)) for name, numbers in features.items()]
    return [one for one in found if one is not None][:MOST]


def _of_answers(
    spec: ModelSpec, parts: Sequence[Batch], artifacts: Artifacts
) -> tuple[list[Distribution], float | None]:
    """Return the distributions of answers, and the mean confidence of their labels."""
    if not parts:
        return [], None
    labels = {
        name: answers.names_of(spec, name, count, artifacts) for name, count in answers.label_counts(parts[0]).items()
    }
    gathered, sure = _Gathered(), _Gathered()
    for part in parts:
        found = answers.measured(part, labels)
        gathered.add({**found.numbers, **found.codes})
        sure.add({} if found.confidence is None else {"": found.confidence})
    made = [_distribution("answer", name, numbers, labels.get(name)) for name, numbers in gathered.joined().items()]
    means = [float(np.nanmean(numbers)) for numbers in sure.joined().values()]
    return [one for one in made if one is not None], next((mean for mean in means if math.isfinite(mean)), None)


def _distribution(kind: Any, name: str, numbers: Array, labels: Sequence[object] | None) -> Distribution | None:
    """Return the distribution of a measure; None of too few samples, or of too many labels."""
    if numbers.ndim != 1 or numbers.dtype.kind not in "fiub":
        raise ValueError(f"the feature {name} has to be one number for each sample, (N,)")
    if len(numbers) < LEAST or len(name) > 100 or (labels is not None and len(labels) > 100):
        return None
    if labels is not None:
        return Distribution.of_codes(kind, name, labels, numbers)
    return Distribution.of_numbers(kind, name, numbers)
