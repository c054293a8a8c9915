"""Networks in ONNX Runtime. PyTorch is the reference: an export is used only if it gives the same answers."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime

from models.checkpoints.onnx_file import Exported, warm_up_outputs
from models.checkpoints.record import Record
from models.errors import CheckpointError
from models.spec import Array, ModelSpec
from service.inference.backends.backend import Backend, Network, in_slices
from service.inference.backends.exports import Exports
from service.inference.pace import Pace, measured

log = logging.getLogger(__name__)

TOLERANCE = 1e-4  # of the largest output: float32 sums in another order differ by 1e-6, a wrong export by much more


class DisagreementError(Exception):
    """The export cannot replace the eager network; the message says why."""


class OnnxBackend:
    """ONNX Runtime. A network that cannot be exported, or answers differently, falls back to `otherwise`, if given."""

    def __init__(
        self,
        exports: Exports,
        threads: int,
        cores: int,
        max_batch: int,
        otherwise: Callable[[], Backend] | None,
    ) -> None:
        self._exports = exports
        self._threads = threads
        self._cores = cores
        self._max_batch = max_batch
        self._otherwise = otherwise
        self._pool = ThreadPoolExecutor(
            max(1, cores - 1), thread_name_prefix="bulk"
        )  # threads start with the first bulk request

    def load(self, model: str, spec: ModelSpec, path: Path, record: Record) -> Network:
        """See Backend."""
        try:
            exported = self._exports.get(model, path, record)
            run = session(exported, spec, self._threads)
            brief, pace = _timed(run, spec, self._max_batch)
            if pace.at_once <= self._max_batch:  # the batcher cuts what would be bulk
                return Network(run, in_slices(run, self._max_batch), "onnxruntime", brief, pace)
            one = run if self._threads == 1 else session(exported, spec, 1)
            # Slices run in parallel without waiting for each other at every layer, as threads inside one would.
            bulk = in_slices(one, self._max_batch, self._pool, self._cores)
            return Network(run, bulk, "onnxruntime", brief, pace)
        except DisagreementError as err:
            if self._otherwise is None:
                raise CheckpointError(f"{model} does not run in ONNX Runtime, set BACKEND=auto: {err}") from err
            log.warning("run by eager PyTorch", extra={"model": model, "reason": str(err)})
        return self._otherwise().load(model, spec, path, record)


def session(exported: Exported, spec: ModelSpec, threads: int) -> Callable[[Array], Array]:
    """Return a function that computes outputs (N, ...) of samples (N, ...) with `threads` threads.

    Raises DisagreementError if there is no export, if it fails, or if it differs from the eager network's outputs by
    more than TOLERANCE, on the warm-up batch or on one of its samples.
    """
    if not exported.onnx:
        raise DisagreementError(f"no export: {exported.refusal}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads do not spin
    try:
        inner = onnxruntime.InferenceSession(exported.onnx, options, providers=["CPUExecutionProvider"])

        def run(samples: Array) -> Array:
            outputs: Array = inner.run(None, {"samples": samples})[0]
            return outputs

        outputs = warm_up_outputs(spec, run)
    except Exception as err:  # ONNX Runtime's errors have no other common base class
        raise DisagreementError(f"ONNX Runtime: {err}") from err
    if outputs.shape != exported.outputs.shape:
        raise DisagreementError(f"the export answers {outputs.shape}, the network {exported.outputs.shape}")
    difference = float(np.abs(outputs - exported.outputs).max())
    if not difference <= TOLERANCE * float(np.abs(exported.outputs).max()):
        raise DisagreementError(f"the export's outputs differ by {difference:.3g} from the network's")
    return run


def _timed(run: Callable[[Array], Array], spec: ModelSpec, max_batch: int) -> tuple[int, Pace]:
    """See measured. Raises DisagreementError if the export fails on a larger batch."""
    try:
        return measured(run, spec.preprocess(spec.example), max_batch)
    except Exception as err:  # as in session
        raise DisagreementError(f"ONNX Runtime: {err}") from err
