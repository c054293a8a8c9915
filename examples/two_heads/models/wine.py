"""Cultivar and alcohol of a wine, by its other measurements: one network, two outputs."""

from collections.abc import Mapping

import numpy as np

from models.outputs import probabilities
from models.signature import Output
from models.spec import Array, Entry, ModelSpec, by_name


def postprocess(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Turn the logits of the cultivar into probabilities."""
    return {**outputs, "cultivar": probabilities(outputs["cultivar"])}


SPEC = ModelSpec(
    summary="cultivar and alcohol of a wine, by 12 measurements",
    network=by_name("models.wine_network:WineNet"),
    entry=Entry(shape=(12,), dtype=np.dtype(np.float32), low=0, high=2_000),
    outputs={"cultivar": Output((3,), labels=["Barolo", "Grignolino", "Barbera"]), "alcohol": Output()},
    postprocess=postprocess,
    example=np.array([[1.7, 2.4, 15.6, 127, 2.8, 3.1, 0.3, 2.3, 5.6, 1.0, 3.9, 1065]], dtype=np.float32),
)
