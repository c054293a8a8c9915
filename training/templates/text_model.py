"""The model NAME: a text in, a label out."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import TypedDict

# isort: split
from models.errors import InvalidInput
from models.outputs import probabilities
from models.signature import Padded, Text
from models.spec import Array, ModelSpec, Prediction, by_name

LABELS = ("negative", "positive")


class Answer(TypedDict):
    """The prediction for one text."""

    label: str
    probability: float


def words_of(text: str) -> list[str]:
    """Cut a text into words in lower case. The recipe makes its vocabulary of them."""
    return re.findall(r"\w+", text.lower())


def encode(
    sample: Mapping[str, Any],
    artifacts: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Look up the words in the vocabulary of the version: int64 (L,); 0 if unknown."""
    vocabulary: Mapping[str, int] = artifacts.get("vocabulary", {})
    words = words_of(sample["text"])
    if not words:
        raise InvalidInput("No words", "text: it has no words; send a sentence")
    return {"words": [vocabulary.get(word, 0) for word in words]}


def answer(row: Array) -> Prediction:
    """Turn the probabilities (labels,) of one text into an Answer."""
    label = int(row.argmax())
    return {"label": LABELS[label], "probability": row[label]}


def describe(rows: Array) -> Sequence[Prediction]:
    """Turn probabilities (N, labels) into N of Answer."""
    return [answer(row) for row in rows]


SPEC = ModelSpec(
    summary="whether a review is positive",
    network=by_name("training.templates.text_network:Network"),
    inputs={"text": Text(max_chars=2_000)},
    encode=encode,
    padding={"words": Padded(mask="mask")},
    postprocess=probabilities,
    describe=describe,
    prediction=Answer,
    example=[{"text": "What a good film!"}, {"text": "Boring."}],
)
