"""Networks in ONNX Runtime. PyTorch is the reference: an export is used only if it gives the same answers."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from models.checkpoints import openvino_session
from models.checkpoints.onnx_file import Exported
from models.checkpoints.onnx_session import open_session
from models.checkpoints.parity import DisagreementError, compare
from models.checkpoints.record import Record
from models.coding import Coder, example_samples
from models.errors import CheckpointError, in_one_line
from models.padding import computing
from models.samples import Batch, Columns, resized
from models.spec import Array, ModelSpec
from service.inference.backends.backend import Backend, Network, Run, in_slices
from service.inference.backends.exports import Exports
from service.inference.backends.forms import Policy, Switched, let_in, likewise, with_forms
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
        forms: Policy = Policy(),  # noqa: B008 - immutable
        rest_s: float = 0.0,
    ) -> None:
        """`rest_s`: how long the first version is served before its forms are opened, which takes processor time."""
        self._exports = exports
        self._threads = threads
        self._cores = cores
        self._max_batch = max_batch
        self._otherwise = otherwise
        self._policy = forms
        self._told: set[tuple[str, str]] = set()  # checkpoints whose reason is in the log
        # threads start with the first bulk request, and with the first version whose forms are let in
        self._pool = ThreadPoolExecutor(max(1, cores - 1), thread_name_prefix="bulk")
        self._closing = threading.Event()
        self._improving = ThreadPoolExecutor(1, "forms", self._closing.wait, (rest_s,))

    def load(self, model: str, spec: ModelSpec, path: Path, record: Record, coder: Coder | None = None) -> Network:
        """See Backend."""
        try:
            exported = self._exports.get(model, spec, path, record, coder)
            plain = session(exported, spec, self._threads)
            samples = _example(spec, coder)
            brief, pace, is_slow = _timed(plain, spec, samples, self._max_batch)
            # Slices run in parallel without waiting for each other at every layer, as threads inside one would.
            one = plain if is_slow or self._threads == 1 else session(exported, spec, 1)
            forms = let_in(exported, self._policy)
            run, alone = Switched(plain, forms), Switched(one, forms)
            bulk = in_slices(run, self._max_batch)  # slow: the batcher cuts what would be bulk
            if not is_slow:
                bulk = in_slices(alone, self._max_batch, self._pool, self._cores)
            if len(forms.refusals) < len(forms.verdicts):
                self._improving.submit(self._improve, exported, samples, run, alone)
            aside = None if is_slow else alone
            return Network(run, bulk, "onnxruntime", brief=brief, pace=pace, aside=aside, switched=run)
        except DisagreementError as err:
            if self._otherwise is None:
                raise CheckpointError(f"{model} does not run in ONNX Runtime, set BACKEND=auto: {err}") from err
            reason = str(err)
        if (model, record.sha256) not in self._told:
            self._told.add((model, record.sha256))
            log.warning("run by eager PyTorch", extra={"model": model, "reason": reason})
        return replace(self._otherwise().load(model, spec, path, record, coder), reason=reason)

    def close(self) -> None:
        """See Backend. Networks that were loaded go on in the forms that they have."""
        self._closing.set()
        self._improving.shutdown(cancel_futures=True)
        self._pool.shutdown()

    def settle(self) -> None:
        """Wait until the networks loaded so far compute in their faster forms."""
        self._improving.submit(int).result()

    def _improve(self, exported: Exported, samples: Batch, run: Switched, alone: Switched) -> None:
        """Have a network compute in its faster forms, after its first answers."""
        try:
            in_one = openvino_session.is_small(exported.onnx)
            faster, forms = with_forms(
                alone.run if in_one else run.run,
                exported,
                run.forms,
                timed=self._policy.wanted == "auto",
                samples=samples,
                max_batch=self._max_batch,
                threads=1 if in_one else self._threads,
                clock=time.thread_time if in_one else time.process_time,
            )
            other = faster if in_one or alone.run is run.run else likewise(alone.run, exported, forms, 1)
            run.since = math.inf  # until they fit each other: see Switched
            alone.run, run.run, run.forms = other, faster, forms
            run.since = time.perf_counter()
        except Exception as err:  # noqa: BLE001 - OpenVINO's errors have no common class; the network goes on in float32
            failed: dict[str, str] = {verdict.form: f"OpenVINO: {in_one_line(err)}" for verdict in exported.verdicts}
            run.forms = replace(run.forms, refusals={**failed, **run.forms.refusals})


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


def _example(spec: ModelSpec, coder: Coder | None) -> Batch:
    try:
        return example_samples(spec, coder)
    except Exception as err:  # of the model's own code, as PyTorch will report it
        raise DisagreementError(f"the example of the model: {err}") from err


def _timed(run: Run, spec: ModelSpec, samples: Batch, max_batch: int) -> tuple[int, Pace, bool]:
    """See measured. Returns also whether a batch of `max_batch` examples takes longer than a slice.

    Raises DisagreementError if the export fails on a larger batch. No sample of a model with variable length is brief:
    the next one may be longer than the example.
    """
    try:
        brief, pace = measured(run, samples, max_batch, padding=spec.ragged_padding)
    except Exception as err:  # as in session
        raise DisagreementError(f"ONNX Runtime: {err}") from err
    return 0 if spec.is_ragged else brief, pace, pace.at_once <= pace.cost(resized(samples, max_batch))
