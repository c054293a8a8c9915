"""The form of a stroke of a pen, by its movements: a series of any length."""

from collections.abc import Sequence

from typing_extensions import TypedDict

from models.outputs import probabilities
from models.signature import Padded, Tensor
from models.spec import Array, ModelSpec, Prediction, by_name

FORMS = ("line", "circle", "zigzag")


class Stroke(TypedDict):
    """The prediction for one stroke."""

    form: str
    probability: float


def describe(rows: Array) -> Sequence[Prediction]:
    """Turn probabilities (N, 3) into N of Stroke."""
    return [{"form": FORMS[row.argmax()], "probability": row.max()} for row in rows]


SPEC = ModelSpec(
    summary="the form of a stroke, by its movements to the right and up in cm",
    network=by_name("models.strokes_network:StrokeNet"),
    inputs={"moves": Tensor((None, 2), low=-10, high=10, longest=500)},
    padding={"moves": Padded(lengths="lengths")},
    postprocess=probabilities,
    describe=describe,
    prediction=Stroke,
    example=[{"moves": [[1, 0.1], [1, 0], [1, -0.1]]}, {"moves": [[1, 0], [0, 1], [-1, 0], [0, -1]]}],
)
