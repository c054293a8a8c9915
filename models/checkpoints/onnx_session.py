"""A session of ONNX Runtime on the CPU. Needs no torch."""

import contextlib
import mmap
import os
from collections.abc import Callable
from functools import cache
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else its import begins a database of usage statistics at home
import onnxruntime

from models.checkpoints.parity import DisagreementError
from models.samples import Batch, Columns
from models.spec import Array

ONE_OUTPUT = "outputs"  # of a network whose spec names none
OF_INPUT = "inputs."  # prefix of a named input
OF_OUTPUT = "outputs."  # prefix of a named output


_LARGE = 1_048_576  # bytes
_AT_ONCE = 4_194_304  # bytes that are copied at a time


def open_session(onnx: bytes | memoryview, threads: int) -> Callable[[Any], Any]:
    """Return a function that computes outputs (N, ...) of samples (N, ...) with `threads` threads.

    Samples are an array, or the named arrays of one bucket; so are outputs, if the export names them.

    Raises DisagreementError if ONNX Runtime cannot load the network.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads do not spin
    _share_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        inner = _session(onnx, options)
    except Exception as err:  # its errors have no other common base class
        raise DisagreementError(f"ONNX Runtime: {err}") from err

    outputs = [output.name for output in inner.get_outputs()]
    inputs = [entry.name for entry in inner.get_inputs()]  # without arrays that the network does not use

    def run(samples: Array) -> Array:
        found: Array = inner.run(None, {"samples": samples})[0]
        return found

    def run_named(samples: Batch) -> Batch:
        arrays = samples.arrays if isinstance(samples, Columns) else {"samples": samples}
        found = inner.run(None, {name: arrays[name.removeprefix(OF_INPUT)] for name in inputs})
        if outputs == [ONE_OUTPUT]:
            only: Array = found[0]
            return only
        return Columns(
            {name.removeprefix(OF_OUTPUT): _int64(array) for name, array in zip(outputs, found, strict=True)}
        )

    return run if (inputs, outputs) == (["samples"], [ONE_OUTPUT]) else run_named


@cache
def _share_memory() -> None:
    """Give all sessions of the process one memory arena.

    With an arena each, 28 small networks that are used in turn evict each other's from the caches: a batch of one took
    88 µs instead of 74.
    """
    kinds, places = onnxruntime.OrtAllocatorType, onnxruntime.OrtMemType
    where = onnxruntime.OrtMemoryInfo("Cpu", kinds.ORT_ARENA_ALLOCATOR, 0, places.DEFAULT)
    onnxruntime.create_and_register_allocator(where, None)


def _int64(array: Array) -> Array:
    """Return int64 as the type of NumPy that JSON knows: ONNX Runtime gives `longlong`, equal but for its name."""
    return array.view(np.int64) if array.dtype == np.int64 and array.dtype.type is not np.int64 else array


def _session(onnx: bytes | memoryview, options: Any) -> Any:
    """Return a session of a network, loaded from a file if it is large: a session keeps the bytes that it is given."""
    providers = ["CPUExecutionProvider"]
    if len(onnx) >= _LARGE:
        with contextlib.suppress(OSError), NamedTemporaryFile(suffix=".onnx") as file:
            for at in range(0, len(onnx), _AT_ONCE):
                file.write(onnx[at : at + _AT_ONCE])
            file.flush()
            if isinstance(onnx, memoryview) and isinstance(onnx.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                onnx.obj.madvise(mmap.MADV_DONTNEED)  # the pages of the file count as memory of this process
            try:
                return onnxruntime.InferenceSession(file.name, options, providers=providers)
            except Exception as err:  # as above
                raise RuntimeError(str(err).replace(file.name, "the export")) from err
    return onnxruntime.InferenceSession(bytes(onnx), options, providers=providers)
