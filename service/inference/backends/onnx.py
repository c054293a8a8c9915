"""Networks in ONNX Runtime. PyTorch is the reference: an export is used only if it gives the same answers."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from models.checkpoints.onnx_file import Exported
from models.checkpoints.onnx_session import open_session
from models.checkpoints.parity import DisagreementError, compare
from models.checkpoints.record import Record
from models.coding import Coder, example_samples
from models.errors import CheckpointError
from models.padding import computing
from models.samples import Columns, resized
from models.spec import Array, ModelSpec
from service.inference.backends.backend import Backend, Network, Run, in_slices
from service.inference.backends.exports import Exports
from service.inference.pace import Pace, measured

log = logging.getLogger(__name__)


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
        self._told: set[tuple[str, str]] = set()  # checkpoints whose reason is in the log
        self._pool = ThreadPoolExecutor(
            max(1, cores - 1), thread_name_prefix="bulk"
        )  # threads start with the first bulk request

    def load(self, model: str, spec: ModelSpec, path: Path, record: Record, coder: Coder | None = None) -> Network:
        """See Backend."""
        try:
            exported = self._exports.get(model, spec, path, record, coder)
            run = session(exported, spec, self._threads)
            brief, pace, is_slow = _timed(run, spec, coder, self._max_batch)
            if is_slow:  # the batcher cuts what would be bulk
                return Network(run, in_slices(run, self._max_batch), "onnxruntime", brief=brief, pace=pace)
            one = run if self._threads == 1 else session(exported, spec, 1)
            # Slices run in parallel without waiting for each other at every layer, as threads inside one would.
            bulk = in_slices(one, self._max_batch, self._pool, self._cores)
            return Network(run, bulk, "onnxruntime", brief=brief, pace=pace)
        except DisagreementError as err:
            if self._otherwise is None:
                raise CheckpointError(f"{model} does not run in ONNX Runtime, set BACKEND=auto: {err}") from err
            reason = str(err)
        if (model, record.sha256) not in self._told:
            self._told.add((model, record.sha256))
            log.warning("run by eager PyTorch", extra={"model": model, "reason": reason})
        return replace(self._otherwise().load(model, spec, path, record, coder), reason=reason)


def session(exported: Exported, spec: ModelSpec, threads: int) -> Run:
    """Return a function that computes outputs of samples, N of each, with `threads` threads.

    Raises DisagreementError if there is no export, if it fails, or if its outputs differ from those of the PyTorch
    network that are stored with it.
    """
    if not exported.onnx:
        raise DisagreementError(f"no export: {exported.refusal}")
    run = open_session(exported.onnx, threads)
    for case in exported.cases:
        compare(run, case)
    if not (spec.inputs or spec.outputs):
        return run

    def forward(arrays: Mapping[str, Array]) -> Sequence[Array]:
        outputs = run(Columns(arrays) if spec.inputs else arrays["samples"])
        return [outputs.arrays[name] for name in spec.outputs] if spec.outputs else [outputs]

    return computing(forward, spec)


def _timed(run: Run, spec: ModelSpec, coder: Coder | None, max_batch: int) -> tuple[int, Pace, bool]:
    """See measured. Returns also whether a batch of `max_batch` examples takes longer than a slice.

    Raises DisagreementError if the export fails on a larger batch. No sample of a model with variable length is brief:
    the next one may be longer than the example.
    """
    try:
        samples = example_samples(spec, coder)
        brief, pace = measured(run, samples, max_batch, padding=spec.ragged_padding)
    except Exception as err:  # as in session
        raise DisagreementError(f"ONNX Runtime: {err}") from err
    return 0 if spec.is_ragged else brief, pace, pace.at_once <= pace.cost(resized(samples, max_batch))
