"""A network in PyTorch -> its ONNX form."""

import io
import warnings

import numpy as np
import torch
from torch import nn

from models.checkpoints.onnx_file import Exported, warm_up_outputs
from models.errors import CheckpointError
from models.spec import Array, ModelSpec

_REASON = 300  # characters of an exporter's complaint that are kept


def export(spec: ModelSpec, network: nn.Module) -> Exported:
    """The ONNX form of `network`, which takes any number of samples; none, with the reason, where it has none.

    Raises CheckpointError where the network itself fails on the spec's example, or answers it with NaN or infinity.
    """

    def run(samples: Array) -> Array:
        outputs: Array = network(torch.from_numpy(samples)).numpy()
        return outputs

    try:
        with torch.inference_mode():
            outputs = warm_up_outputs(spec, run)
    except (RuntimeError, ValueError, TypeError, AttributeError) as err:
        raise CheckpointError(f"the network fails on the model's example: {err}") from err
    if not np.isfinite(outputs).all():
        raise CheckpointError("the network answers the model's example with NaN or infinity")
    try:
        return Exported(_to_onnx(network, torch.tensor(spec.preprocess(spec.example))), outputs)
    except Exception as err:  # noqa: BLE001 - the exporter's errors have no common class; without ONNX it runs eagerly
        return Exported(b"", outputs, f"{type(err).__name__}: {err}"[:_REASON])


def _to_onnx(network: nn.Module, samples: torch.Tensor) -> bytes:
    """By the tracing exporter: the newer one takes 20 times as long for such networks, and 130 MB more."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated; torch is pinned, and every export is checked against eager
        torch.onnx.export(
            network,
            (samples,),
            file,  # type: ignore[arg-type]  # what takes no path is declared for the newer exporter only
            dynamo=False,
            input_names=["samples"],
            output_names=["outputs"],
            dynamic_axes={"samples": {0: "n"}, "outputs": {0: "n"}},
        )
    return file.getvalue()
