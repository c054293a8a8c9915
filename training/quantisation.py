"""A network in int8: weights and activations quantised, with ranges measured on samples of the training split."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models.errors import in_one_line
from models.spec import Array

log = logging.getLogger(__name__)
_SAMPLES, _BATCH = 512, 64


def quantised(onnx: bytes | memoryview, samples: Array) -> bytes:
    """Return the ONNX network with int8 weights and activations (QDQ); empty if it cannot be quantised.

    `samples` (N, ...) are those whose activations are measured: the first 512.
    """
    from onnxruntime.quantization import (  # noqa: PLC0415 - imports onnx
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    class Samples(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            self._batches = iter([{"samples": samples[at : at + _BATCH]} for at in range(0, _SAMPLES, _BATCH)])

        def get_next(self) -> Any:
            return next(self._batches, None)

    with TemporaryDirectory() as folder:
        before, ready, after = (Path(folder, f"{name}.onnx") for name in ("before", "ready", "after"))
        before.write_bytes(onnx)
        try:
            quant_pre_process(before, ready, skip_symbolic_shape=True)
            quantize_static(
                ready,
                after,
                Samples(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except Exception as err:  # noqa: BLE001 - its errors have no common class; the network then has no int8 form
            log.info("network not quantised", extra={"reason": f"{type(err).__name__}: {in_one_line(err)}"})
            return b""
        return after.read_bytes()
