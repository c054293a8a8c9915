"""Tensors, metadata and configuration of a model in the Open Inference Protocol, derived from its spec."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.pictures import PICTURE_FORMATS
from models.spec import ModelSpec
from service.api.openinference.codec import Accepted
from service.api.openinference.tensors import BYTES, TensorType, datatype_of

INPUT = "input"
OUTPUT = "output"
PLATFORM = "pytorch_state_dict"


def accepted(spec: ModelSpec) -> Accepted:
    """Return the one input and its forms: an array of entries, and encoded pictures if the model accepts pictures.

    A model of FP32 also accepts FP64.
    """
    shape = (-1, *spec.tensor.shape)
    forms = [TensorType(INPUT, datatype_of(spec.tensor.dtype), shape)]
    if spec.tensor.dtype == np.float32:
        forms.append(TensorType(INPUT, "FP64", shape))  # NumPy's and pandas' own; it is converted
    if spec.picture:
        forms.append(TensorType(INPUT, BYTES, (-1,)))
    return {INPUT: forms}


def metadata(name: str, spec: ModelSpec, versions: Sequence[int], width: int) -> dict[str, Any]:
    """Return the body of GET /v2/models/{model}; `width` is k of the spec's values (N, k)."""
    properties = {"summary": spec.summary}
    if spec.picture:
        formats = ", ".join(PICTURE_FORMATS.values())
        properties[INPUT] = f"also {BYTES} [-1]: encoded pictures ({formats}); in JSON each as base64"
    return {
        "name": name,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "properties": properties,
        "inputs": [_described(forms[0]) for forms in accepted(spec).values()],
        "outputs": [_described(_output(width))],
    }


def configuration(name: str, spec: ModelSpec, width: int, max_batch: int) -> dict[str, Any]:
    """Return the body of GET /v2/models/{model}/config; its shapes omit the batch dimension."""
    return {
        "name": name,
        "platform": PLATFORM,
        "backend": "pytorch",
        "max_batch_size": max_batch,
        "dynamic_batching": {},
        "input": [_configured(forms[0]) for forms in accepted(spec).values()],
        "output": [_configured(_output(width))],
    }


def _output(width: int) -> TensorType:
    return TensorType(OUTPUT, "FP32", (-1, width))


def _described(kind: TensorType) -> dict[str, Any]:
    return {"name": kind.name, "datatype": kind.datatype, "shape": kind.shape}


def _configured(kind: TensorType) -> dict[str, Any]:
    datatype = "STRING" if kind.datatype == BYTES else kind.datatype
    return {"name": kind.name, "data_type": f"TYPE_{datatype}", "dims": kind.shape[1:]}
