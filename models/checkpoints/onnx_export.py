"""Export a PyTorch network to ONNX."""

import io
import warnings

import numpy as np
import torch
from torch import nn

from models.checkpoints.onnx_file import Exported, warm_up_outputs
from models.errors import CheckpointError
from models.spec import Array, ModelSpec

_REASON = 300  # longest part of the exporter's error message that is kept


def export(spec: ModelSpec, network: nn.Module) -> Exported:
    """Export `network` with a dynamic batch size. If it cannot be exported, `onnx` is empty and `refusal` says why.

    Raises CheckpointError if the network itself fails on the spec's example or returns NaN or infinity.
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
        raise CheckpointError("the network returns NaN or infinity for the model's example")
    try:
        return Exported(_to_onnx(network, torch.tensor(spec.preprocess(spec.example))), outputs)
    except Exception as err:  # noqa: BLE001 - the exporter's errors have no common class; without ONNX the network runs eagerly
        return Exported(b"", outputs, f"{type(err).__name__}: {err}"[:_REASON])


def _to_onnx(network: nn.Module, samples: torch.Tensor) -> bytes:
    """Use the tracing exporter: the newer one takes 20 times as long for these networks, and 130 MB more."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, but torch is pinned and every export is compared with eager
        torch.onnx.export(
            network,
            (samples,),
            file,  # type: ignore[arg-type]  # a file object is declared for the newer exporter only
            dynamo=False,
            input_names=["samples"],
            output_names=["outputs"],
            dynamic_axes={"samples": {0: "n"}, "outputs": {0: "n"}},
        )
    return file.getvalue()
