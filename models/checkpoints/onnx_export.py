"""Export a PyTorch network to ONNX, and prove that ONNX Runtime gives the same outputs."""

import io
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.checkpoints.onnx_file import Exported
from models.checkpoints.onnx_session import open_session
from models.checkpoints.parity import Case, DisagreementError, cases, compare
from models.errors import CheckpointError, in_one_line
from models.spec import Array, ModelSpec

_Traced: type[Warning] = torch.jit.TracerWarning  # type: ignore[attr-defined]  # it is public, but not listed
_CHEAP = 8 * 2**20  # bytes of a network and its batches: all of them are computed again whenever it is loaded
# Warnings of the tracer about a value of a tensor that becomes a constant of the export. Booleans are left out: most
# come from checks of shapes, and the other branch of a network shows in the random batches.
_CONSTANT = re.compile(r"Converting a tensor to a (Python (?!boolean)\w+|NumPy array)")


def export(spec: ModelSpec, network: nn.Module) -> Exported:
    """Export `network` with a dynamic batch size, and compare it with PyTorch on the example and on random batches.

    If it cannot be exported or gives other outputs, `onnx` is empty and `refusal` says why. Raises CheckpointError if
    the network itself fails on the spec's example or returns NaN or infinity.
    """

    def run(samples: Array) -> Array:
        outputs: Array = network(torch.from_numpy(samples)).numpy()
        return outputs

    try:
        with torch.inference_mode():
            short, random = cases(spec, run)
    except (RuntimeError, ValueError, TypeError, AttributeError) as err:
        raise CheckpointError(f"the network fails on the model's example: {in_one_line(err)}") from err
    if not all(np.isfinite(case.outputs).all() for case in short):
        raise CheckpointError("the network returns NaN or infinity for the model's example")
    try:
        onnx = _to_onnx(network, torch.from_numpy(short[0].samples))
        session = open_session(onnx, 1)
        for case in (*short, *random):
            compare(session, case)
    except DisagreementError as err:
        return Exported(b"", refusal=in_one_line(err))
    except Exception as err:  # noqa: BLE001 - the exporter's errors have no common class; without ONNX the network runs eagerly
        return Exported(b"", refusal=f"{type(err).__name__}: {in_one_line(err)}")
    return Exported(onnx, [*short, *random] if _size(onnx, random) <= _CHEAP else short)


def _size(onnx: bytes, batches: Iterable[Case]) -> int:
    return len(onnx) + sum(case.samples.nbytes + case.outputs.nbytes for case in batches)


def _to_onnx(network: nn.Module, samples: torch.Tensor) -> bytes:
    """Trace the network. Raises DisagreementError if the trace holds a number of this batch as a constant."""
    file = io.BytesIO()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", category=_Traced, module=r"torch\.")  # as torch itself does
        torch.onnx.export(
            network,
            (samples,),
            file,  # type: ignore[arg-type]  # a file object is declared for the newer exporter only
            dynamo=False,
            input_names=["samples"],
            output_names=["outputs"],
            dynamic_axes={"samples": {0: "n"}, "outputs": {0: "n"}},
        )
    for warning in told:
        found = _CONSTANT.match(str(warning.message))
        if found and issubclass(warning.category, _Traced):
            place = f"{Path(warning.filename).name}, line {warning.lineno}"
            raise DisagreementError(
                f"{place}: a {found[1]} taken from a tensor: the export would use that of one batch for all batches"
            )
    return file.getvalue()
