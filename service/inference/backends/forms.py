"""Numeric forms of a loaded network: let in by their verdicts, and chosen for each batch size by measuring."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from models.checkpoints import openvino_session
from models.checkpoints.onnx_file import Exported
from models.checkpoints.parity import DisagreementError, compare
from models.checkpoints.verdict import Form, Limits, Verdict
from models.samples import Batch, resized
from service.inference.pace import SLICE_S

Run = Callable[[Any], Any]  # samples -> outputs, N of each
AnyForm = Form | Literal["fp32"]
Wanted = Literal["auto", "fp32", "bf16", "int8"]
_SIZES = (1, 4, 16, 64)  # batches that are timed
_TRIES, _LEAST_TRIES, _TRIES_S = 30, 5, 0.1  # for a batch size; the shortest counts
_GAIN = 0.95  # of the time of float32: a form that takes longer is not worth another answer
_GROSS = 0.1  # of the largest output: a form that differs by more on the stored batches is computed wrongly


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Which form may be used: `wanted` by the settings, within the limits of the gate."""

    wanted: Wanted = "fp32"
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """The numeric forms of a network in this process.

    steps     (least samples of a batch, form), ascending from 1
    verdicts  those that are kept with the export
    refusals  form -> why it is not used
    """

    steps: Sequence[tuple[int, AnyForm]] = ((1, "fp32"),)
    verdicts: Sequence[Verdict] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)


class Switched:
    """A function that computes in float32 until `run` is replaced by a faster one; `forms` says by what.

    `since`: seconds of `time.perf_counter` from which on all calls compute as `forms` says; infinite while both are
    being replaced.
    """

    __slots__ = ("forms", "run", "since")

    def __init__(self, run: Run, forms: Forms) -> None:
        self.run = run
        self.forms = forms
        self.since = time.perf_counter()

    def __call__(self, samples: Batch) -> Any:
        """Compute outputs (N, ...) of samples (N, ...)."""
        return self.run(samples)

    def form_of(self, size: int, began: float, *, whole: bool) -> AnyForm | None:
        """Return the form that has computed a batch of `size` samples, as one if it is `whole`, else perhaps in slices.

        To be called after it was computed; `began` is a time before that, in seconds of `time.perf_counter`. So nothing
        is recorded while one computes. None if slices may have had several forms, or if the forms have changed since.
        """
        steps = self.forms.steps  # before `since`: see OnnxBackend, which sets them the other way round
        if self.since > began:
            return None
        used = [form for least, form in steps if least <= size]
        return used[-1] if whole or len(used) == 1 else None

    def least_of(self, form: str | None) -> int:
        """Return the least size of a batch that is computed in a form; 1 if none is, or for None."""
        return next((least for least, one in self.forms.steps if one == form), 1)


def let_in(exported: Exported, policy: Policy) -> Forms:
    """Return the verdicts, and why a form is not used, as far as this is known before it is loaded."""
    refusals: dict[str, str] = {}
    for verdict in exported.verdicts:
        if policy.wanted not in {"auto", verdict.form}:
            refusals[verdict.form] = f"TORCHLOOP_FORM is {policy.wanted}"
        elif refusal := policy.limits.refusal(verdict, openvino_session.runtime()):
            refusals[verdict.form] = refusal
    return Forms(verdicts=exported.verdicts, refusals=refusals)


def with_forms(
    plain: Run,
    exported: Exported,
    forms: Forms,
    *,
    timed: bool,
    samples: Batch,
    max_batch: int,
    threads: int,
    clock: Callable[[], float] = time.process_time,
) -> tuple[Run, Forms]:
    """Return the function that computes each batch in the fastest form that is admitted, and the choice.

    `plain` computes in float32 and `samples` are those of the example. If `timed`, each form is timed against float32
    for several batch sizes, in CPU time, which other load hardly changes; otherwise the only form that is let in
    computes all batches.
    """
    opened, refusals = _opened(exported, forms, threads)
    if not opened:
        return plain, replace(forms, refusals=refusals)
    runs: dict[AnyForm, Run] = {"fp32": plain, **opened}
    steps = _fastest(runs, samples, max_batch, clock) if timed else [(1, form) for form in opened]
    used = {form for _, form in steps}
    refusals |= {form: "not faster in this process" for form in opened if form not in used}
    return _by_size(steps, runs), replace(forms, steps=steps, refusals=refusals)


def likewise(plain: Run, exported: Exported, forms: Forms, threads: int) -> Run:
    """Return the function that computes as `with_forms` chose, with another number of threads."""
    used = {form for _, form in forms.steps}
    runs: dict[AnyForm, Run] = {form: plain if form == "fp32" else _verified(exported, form, threads) for form in used}
    return _by_size(forms.steps, runs)


def _opened(exported: Exported, forms: Forms, threads: int) -> tuple[dict[AnyForm, Run], dict[str, str]]:
    """Open the forms that are let in. Returns also why others are not used."""
    opened: dict[AnyForm, Run] = {}
    refusals = dict(forms.refusals)
    for form in (verdict.form for verdict in forms.verdicts if verdict.form not in refusals):
        try:
            if form in openvino_session.forms():
                opened[form] = _verified(exported, form, threads)
            else:
                refusals[form] = "this processor has no instructions for it"
        except DisagreementError as err:
            refusals[form] = str(err)
    return opened, refusals


def _verified(exported: Exported, form: Form, threads: int) -> Run:
    """Open a form, and compare it roughly on the stored batches. Raises DisagreementError."""
    onnx = exported.quantised if form == "int8" else exported.onnx
    run = openvino_session.open_form(onnx, form, threads)
    for case in exported.cases:
        compare(run, case, tolerance=_GROSS)
    return run


def _fastest(
    runs: Mapping[AnyForm, Run], samples: Batch, max_batch: int, clock: Callable[[], float]
) -> list[tuple[int, AnyForm]]:
    """Return the steps of the fastest forms, up to batches that take as long as a slice of the device."""
    found: list[tuple[int, AnyForm]] = []
    for size in dict.fromkeys(min(size, max_batch) for size in _SIZES):
        batch = resized(samples, size)
        seconds = dict.fromkeys(runs, float("inf"))
        until = clock() + _TRIES_S
        for tries in range(_TRIES):  # in turns, so that other load on the machine affects all
            if tries >= _LEAST_TRIES and clock() > until:
                break
            for form, run in runs.items():
                began = clock()
                run(batch)
                seconds[form] = min(seconds[form], clock() - began)
        best = min(seconds, key=lambda form: seconds[form])
        best = best if seconds[best] < _GAIN * seconds["fp32"] else "fp32"
        if not found or found[-1][1] != best:
            found.append((size, best))
        if seconds["fp32"] > SLICE_S:
            break
    return found


def _by_size(steps: Sequence[tuple[int, AnyForm]], runs: Mapping[AnyForm, Run]) -> Run:
    """Return the function that computes a batch in the form of the last step with at most as many samples."""
    if len(steps) == 1:
        return runs[steps[0][1]]
    falling = [(least, runs[form]) for least, form in reversed(steps)]

    def run(samples: Batch) -> Batch:
        compute = next(compute for least, compute in falling if len(samples) >= least)
        outputs: Batch = compute(samples)
        return outputs

    return run
