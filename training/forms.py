"""Numeric forms of a network: evaluate each on the validation split, against float32."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from models.artifacts import Artifacts
from models.checkpoints import openvino_session
from models.checkpoints.onnx_file import Exported
from models.checkpoints.onnx_session import open_session
from models.checkpoints.parity import DisagreementError
from models.checkpoints.verdict import Form, Verdict
from models.errors import in_one_line
from models.outputs import postprocessing
from models.spec import Array, ModelSpec
from training.quantisation import quantised
from training.recipe import Dataset, Split

_BATCH = 64  # samples in a forward pass
_MOST = 10_000  # examples that are compared: the first ones
Run = Callable[[Any], Any]


def judged(exported: Exported, spec: ModelSpec, artifacts: Artifacts, dataset: Dataset) -> Exported:
    """Add the verdicts on the numeric forms that this machine can compute, and the network in int8.

    The export is returned unchanged if OpenVINO is not installed, if there is no network to evaluate, or if it is
    not a model whose outputs are the probabilities of classes for one tensor.
    """
    forms = openvino_session.forms()
    if not exported.onnx or not forms or not _takes_one_tensor(spec, dataset.validation):
        return exported
    plain, values = open_session(exported.onnx, 1), postprocessing(spec, artifacts)
    if not _are_probabilities(values(plain(_array(dataset.validation)[:_BATCH]))):
        return exported
    if "int8" in forms:
        exported = replace(exported, quantised=quantised(exported.onnx, _array(dataset.train)))
    verdicts = [_verdict(form, exported, plain, values, dataset) for form in forms]
    kept = exported.quantised if any(verdict.form == "int8" and not verdict.fault for verdict in verdicts) else b""
    return replace(exported, verdicts=verdicts, quantised=kept)


def _takes_one_tensor(spec: ModelSpec, split: Split) -> bool:
    return not (spec.inputs or spec.outputs) and isinstance(split.samples, Tensor) and len(split) > 0


def _are_probabilities(outputs: Any) -> bool:
    """Return whether outputs of a batch are the probabilities of classes, (N, classes)."""
    rows = np.asarray(outputs)
    if rows.ndim != 2 or rows.shape[1] < 2 or (rows < 0).any():
        return False
    return np.allclose(rows.sum(axis=1), 1, atol=1e-3)


def changes(plain: Run, other: Run, values: Run, samples: Array) -> tuple[int, float]:
    """Return how many samples get another label by `other`, and the largest change of a probability.

    `values` makes probabilities (N, classes) of outputs.
    """
    changed, largest = 0, 0.0
    for begin in range(0, len(samples), _BATCH):
        batch = samples[begin : begin + _BATCH]
        before, after = (np.asarray(values(run(batch))) for run in (plain, other))
        changed += int((before.argmax(axis=1) != after.argmax(axis=1)).sum())
        largest = max(largest, float(np.abs(before - after).max(initial=0)))
        if not np.isfinite(after).all():
            return changed, math.nan
    return changed, largest


def _verdict(form: Form, exported: Exported, plain: Run, values: Run, dataset: Dataset) -> Verdict:
    verdict = Verdict(form=form, runtime=openvino_session.runtime(), dataset=dataset.name)
    try:
        run = openvino_session.open_form(exported.quantised if form == "int8" else exported.onnx, form, 1)
        samples = _array(dataset.validation)
        changed, largest = changes(plain, run, values, samples)
    except DisagreementError as err:
        return replace(verdict, fault=in_one_line(err))
    if math.isnan(largest):
        return replace(verdict, fault="returns NaN or infinity")
    return replace(verdict, rows=len(samples), changed=changed, largest_change=largest)


def _array(split: Split) -> Array:
    samples: Array = split.samples[:_MOST].cpu().numpy()
    return samples
