"""The regressor: takes one number, predicts one number. The shipped checkpoint is fitted to y = x^2 on [-1, 1]."""

from functools import partial

import numpy as np

from models.outputs import Value, describe_values, values
from models.spec import Entry, ModelSpec, by_name

SPEC = ModelSpec(
    summary="y = x^2 with noise, learnt from 100 points on [-1, 1]",
    network=partial(by_name("models.networks:Perceptron"), features=1, outputs=1),
    entry=Entry(shape=(1,), dtype=np.dtype(np.float32)),
    postprocess=values,
    describe=describe_values,
    prediction=Value,
    example=np.array([[0.5], [1.0]], dtype=np.float32),
)
