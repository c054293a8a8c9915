"""A session of ONNX Runtime on the CPU. Needs no torch."""

from collections.abc import Callable

import onnxruntime

from models.checkpoints.parity import DisagreementError
from models.spec import Array


def open_session(onnx: bytes, threads: int) -> Callable[[Array], Array]:
    """Return a function that computes outputs (N, ...) of samples (N, ...) with `threads` threads.

    Raises DisagreementError if ONNX Runtime cannot load the network.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads do not spin
    try:
        inner = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as err:  # its errors have no other common base class
        raise DisagreementError(f"ONNX Runtime: {err}") from err

    def run(samples: Array) -> Array:
        outputs: Array = inner.run(None, {"samples": samples})[0]
        return outputs

    return run
