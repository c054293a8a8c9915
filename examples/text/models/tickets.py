"""The department for a customer's message. Vocabulary and names of departments belong to each version."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import TypedDict

from models.errors import InvalidInput
from models.outputs import probabilities
from models.signature import Padded, Text
from models.spec import Array, ModelSpec, Prediction, by_name


class Ticket(TypedDict):
    """The prediction for one message."""

    department: str
    probability: float


def words_of(text: str) -> list[str]:
    """Cut a text into words in lower case."""
    return re.findall(r"\w+", text.lower())


def encode(sample: Mapping[str, Any], artifacts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Look up the words in the vocabulary: int64 (L,); unknown words are 0."""
    vocabulary: Mapping[str, int] = artifacts.get("vocabulary", {})
    words = words_of(sample["message"])
    if not words:
        raise InvalidInput("No words", "message: it has no words; send a sentence")
    return {"words": [vocabulary.get(word, 0) for word in words]}


def describe(rows: Array, artifacts: Mapping[str, Any]) -> Sequence[Prediction]:
    """Turn probabilities (N, departments) into N of Ticket."""
    names: Sequence[str] = artifacts.get("departments", ("0", "1", "2"))
    return [{"department": names[row.argmax()], "probability": row.max()} for row in rows]


SPEC = ModelSpec(
    summary="the department that a customer's message is for",
    network=by_name("models.tickets_network:TicketNet"),
    inputs={"message": Text(max_chars=5_000)},
    encode=encode,
    padding={"words": Padded(mask="mask")},
    postprocess=probabilities,
    describe=describe,
    prediction=Ticket,
    example=[{"message": "Where is my parcel?"}, {"message": "I want a refund for the last bill, please."}],
)
