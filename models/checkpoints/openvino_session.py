"""A network in OpenVINO on the CPU, in a numeric form. An extra; needs no torch."""

import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from models.checkpoints.parity import DisagreementError
from models.checkpoints.verdict import Form
from models.spec import Array

# a quantised network says itself what it computes in int8
_HINT: Mapping[Form, str] = {"bf16": "bf16", "int8": "f32"}
_CONVERTER = "openvino.tools.ovc"  # of other formats to OpenVINO's
_SMALL = 1_048_576  # bytes: several copies of such a network take little memory, and its layers little time
_SIZES = (1, 4, 16)  # of batches for which a small network is compiled; larger ones take no less time for a sample
# what OpenVINO calls the instructions of a processor
_NEEDS: Mapping[Form, str] = {"bf16": "BF16", "int8": "INT8"}


def is_installed() -> bool:
    """Return whether OpenVINO is installed, without importing it."""
    return find_spec("openvino") is not None


@cache
def runtime() -> str:
    """Return name and minor version of the installed OpenVINO; empty without it. A verdict holds for one of them."""
    try:
        return f"openvino {'.'.join(version('openvino').split('.')[:2])}"
    except PackageNotFoundError:
        return ""


def forms() -> tuple[Form, ...]:
    """Return the forms that the processor has instructions for; none if OpenVINO is not installed."""
    if not is_installed():
        return ()
    able = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(form for form in _NEEDS if _NEEDS[form] in able)


@cache
def _core() -> Any:
    # It would send usage statistics to the network, from a forked process: a fork of threads may never end.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # its import fails, which openvino expects
    sys.modules.setdefault(_CONVERTER, None)  # type: ignore[arg-type] # as above; it takes half of the import's time
    import openvino  # noqa: PLC0415 - an extra, of 0.04 s and 6 MB

    if sys.modules[_CONVERTER] is None:
        del sys.modules[_CONVERTER]
    return openvino.Core()


def is_small(onnx: bytes | memoryview) -> bool:
    """Return whether a network is computed in the calling thread alone: others would take longer to join in."""
    return len(onnx) < _SMALL


def open_form(onnx: bytes | memoryview, form: Form, threads: int) -> Callable[[Array], Array]:
    """Return a function that computes outputs (N, ...) of samples (N, ...) in a numeric form with `threads` threads, of
    which the caller's is one; if `is_small`, in that one alone.

    Several threads may call it at once. A processor without bfloat16 (see `forms`) computes in float32. Raises
    DisagreementError if OpenVINO cannot load the network.
    """
    try:
        network = _core().read_model(bytes(onnx))
        if is_small(onnx) and _is_fixed(network):
            return _small(onnx, form)
        threads = 1 if is_small(onnx) else threads
        compiled = _compiled(network, form, {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1})
    except Exception as err:  # its errors have no other common base class
        raise DisagreementError(f"OpenVINO: {err}") from err
    from openvino import Tensor as tensor  # noqa: PLC0415, N813 - imported by now

    requests: list[Any] = []  # idle ones: a request computes one batch at a time

    def run(samples: Array) -> Array:
        given = np.require(samples, requirements=["C", "W"])  # a request does not keep its input's memory alive
        try:
            request = requests.pop()
        except IndexError:
            request = compiled.create_infer_request()
        try:
            request.set_input_tensor(tensor(given, shared_memory=True))
            request.infer(None, share_outputs=True)  # `start_async` would hand the batch to another thread
            return np.array(request.get_output_tensor().data)
        finally:
            requests.append(request)

    return run


def _compiled(network: Any, form: Form, threads: Mapping[str, int]) -> Any:
    config = {"INFERENCE_PRECISION_HINT": _HINT[form], "ENABLE_CPU_PINNING": False, **threads}
    return _core().compile_model(network, "CPU", config)


def _is_fixed(network: Any) -> bool:
    """Whether only the number of samples is free in the shape of the one input."""
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        return False
    first, *others = network.inputs[0].partial_shape
    return first.is_dynamic and all(dimension.is_static for dimension in others)


class _Sized:
    """A network compiled for batches of exactly `size` samples."""

    def __init__(self, onnx: bytes | memoryview, form: Form, size: int) -> None:
        network = _core().read_model(bytes(onnx))
        only = network.inputs[0]
        network.reshape({only: [size, *list(only.partial_shape)[1:]]})
        self.size = size
        self._network = _compiled(network, form, {"NUM_STREAMS": 0})  # no other threads
        self._idle: list[tuple[Callable[..., object], Array, Array]] = []

    def __call__(self, samples: Array) -> Array:
        """Compute at most `size` samples."""
        try:
            infer, given, found = self._idle.pop()
        except IndexError:
            request = self._network.create_infer_request()
            infer, given, found = request.infer, request.get_input_tensor().data, request.get_output_tensor().data
        rows = len(samples)
        try:
            np.copyto(given[:rows], samples, casting="equiv")  # the rest is left from an earlier batch
            infer(None, share_outputs=True)
            outputs: Array = found[:rows].copy()
            return outputs
        finally:
            self._idle.append((infer, given, found))


def _small(onnx: bytes | memoryview, form: Form) -> Callable[[Array], Array]:
    """Return the function that computes with a network for each of `_SIZES`.

    One for batches of any size takes 17 µs longer for each batch, and for each new size 1.8 ms and, for good, 0.2 MB.
    """
    falling = [_Sized(onnx, form, size) for size in reversed(_SIZES)]

    def run(samples: Array) -> Array:
        parts, at = [], 0
        while at < len(samples):
            left = len(samples) - at
            sized = next(one for one in falling if 2 * left > one.size)  # at least half of it is needed
            parts.append(sized(samples[at : at + sized.size]))
            at += sized.size
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return run
