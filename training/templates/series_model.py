"""The model NAME: a series of any length in, its next value out."""

# isort: split
from models.outputs import Value, describe_values, values
from models.signature import Padded, Tensor
from models.spec import ModelSpec, by_name

SPEC = ModelSpec(
    summary="the next value of a series",
    network=by_name("training.templates.series_network:Network"),
    inputs={"series": Tensor((None,), low=-10, high=10, shortest=2, longest=1_000)},
    padding={"series": Padded(lengths="lengths")},
    postprocess=values,
    describe=describe_values,
    prediction=Value,
    example=[
        {"series": [0.0, 0.5, 0.8, 1.0]},
        {"series": [1.0, 0.9, 0.6, 0.2, -0.2, -0.6]},
    ],
)
