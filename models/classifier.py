"""The two-class classifier: takes a point of the plane, predicts which of two clouds it belongs to."""

from functools import partial

import numpy as np

from models.outputs import Classification, describe_classes, probabilities
from models.spec import Entry, ModelSpec, by_name

SPEC = ModelSpec(
    summary="two normal clouds: label 0 around (2, 2), label 1 around (-2, -2)",
    network=partial(by_name("models.networks:Perceptron"), features=2, outputs=2),
    entry=Entry(shape=(2,), dtype=np.dtype(np.float32)),
    postprocess=probabilities,
    describe=describe_classes,
    prediction=Classification,
    example=np.array([[2.0, 1.5], [-1.0, -2.5]], dtype=np.float32),
)
