"""Numeric forms are judged by the validation split, and only where there is something to judge."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.checkpoints import onnx_file, openvino_session, state_dict
from models.checkpoints.location import StoreLocation
from models.checkpoints.onnx_export import export
from models.checkpoints.onnx_file import Exported
from models.checkpoints.onnx_session import open_session
from models.checkpoints.parity import DisagreementError
from models.checkpoints.record import Record
from models.checkpoints.storage import Storage
from models.checkpoints.verdict import Form
from models.messages import Evaluate, Export, Failed, Message
from models.outputs import Classification, describe_classes, probabilities
from models.spec import Array, Entry, ModelSpec
from tests.fakes import LINE, Line
from training import metrics
from training.executor import Executor
from training.forms import judged
from training.recipe import Dataset, Hyperparameters, Recipe, Split

SPEC = ModelSpec(
    summary="three classes",
    network=lambda: nn.Linear(4, 3),
    entry=Entry(shape=(4,), dtype=np.dtype(np.float32)),
    postprocess=probabilities,
    describe=describe_classes,
    prediction=Classification,
    example=np.ones((1, 4), np.float32),
)


def split(rows: int, seed: int) -> Split:
    samples = torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))
    return Split(samples, torch.zeros(rows, dtype=torch.int64))


DATASET = Dataset(name="points", train=split(600, 0), validation=split(200, 1), test=split(100, 2))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3).eval()


@pytest.fixture(scope="module")
def exported(network: nn.Module) -> Exported:
    return export(SPEC, network)


def opens(monkeypatch: pytest.MonkeyPatch, forms: tuple[Form, ...], change: Callable[[Array], Array]) -> None:
    """Have OpenVINO compute these forms as ONNX Runtime does, with changed outputs."""

    def open_form(onnx: bytes, form: Form, threads: int) -> Callable[[Array], Array]:
        run = open_session(onnx, threads)
        return lambda samples: change(run(samples))

    monkeypatch.setattr(openvino_session, "forms", lambda: forms)
    monkeypatch.setattr(openvino_session, "runtime", lambda: "openvino 1.2")
    monkeypatch.setattr(openvino_session, "open_form", open_form)


def test_a_verdict_counts_what_changes_on_the_validation_split(
    exported: Exported, network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = np.array([0.2, 0, 0], np.float32)
    opens(monkeypatch, ("bf16",), lambda outputs: outputs + moved)
    (verdict,) = judged(exported, SPEC, {}, DATASET).verdicts
    before = metrics.outputs(network, DATASET.validation.samples)
    after = before + torch.from_numpy(moved)
    assert (verdict.form, verdict.runtime, verdict.dataset, verdict.rows) == ("bf16", "openvino 1.2", "points", 200)
    assert verdict.changed == (before.argmax(dim=1) != after.argmax(dim=1)).sum() > 0
    change = (before.softmax(dim=1) - after.softmax(dim=1)).abs().max().item()
    assert verdict.largest_change == pytest.approx(change, rel=1e-4)


def test_a_form_that_fails_or_returns_nan_has_a_verdict_with_the_reason(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens(monkeypatch, ("bf16",), lambda outputs: outputs * np.float32(np.nan))
    assert judged(exported, SPEC, {}, DATASET).verdicts[0].fault == "returns NaN or infinity"

    def broken(*_: object) -> Callable[[Array], Array]:
        raise DisagreementError("OpenVINO: no")

    monkeypatch.setattr(openvino_session, "open_form", broken)
    assert judged(exported, SPEC, {}, DATASET).verdicts[0].fault == "OpenVINO: no"


def test_the_quantised_network_is_kept_with_its_verdict(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    opens(monkeypatch, ("int8",), lambda outputs: outputs)
    found = judged(exported, SPEC, {}, DATASET)
    assert found.quantised
    assert 0 < found.verdicts[0].largest_change < 0.1
    opens(monkeypatch, ("int8",), lambda outputs: outputs * np.float32(np.nan))
    assert not judged(exported, SPEC, {}, DATASET).quantised
    no_network = judged(replace(exported, onnx=b"", refusal="no"), SPEC, {}, DATASET)
    assert not no_network.verdicts


def test_only_models_of_classes_are_judged_and_only_with_openvino(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens(monkeypatch, ("bf16",), lambda outputs: outputs)
    line = export(LINE, Line().eval())
    numbers = Split(torch.ones(5, 1), torch.ones(5, 1))
    assert judged(line, LINE, {}, replace(DATASET, validation=numbers)) is line
    monkeypatch.setattr(openvino_session, "forms", lambda: ())
    assert judged(exported, SPEC, {}, DATASET) is exported


def known() -> Mapping[str, Recipe[Hyperparameters]]:
    recipe = Recipe(
        config=Hyperparameters,
        arguments=lambda _: {},
        load=lambda _, __: DATASET,
        fit=lambda *_: None,
        evaluate=metrics.classification,
        metric="accuracy",
        higher_is_better=True,
    )
    return {"points": recipe}


@pytest.mark.parametrize(("evaluated", "judge"), [(True, True), (True, False), (False, True)])
def test_an_export_is_judged_if_asked_for_and_if_the_split_was_read(
    evaluated: bool, judge: bool, network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens(monkeypatch, ("bf16",), lambda outputs: outputs)
    path = tmp_path / "points.pt"
    record = Record(model="points", sha256=state_dict.save_weights(network.state_dict(), path))
    told: list[Message] = []
    executor = Executor(told.append, {"points": SPEC}, known)
    if evaluated:
        executor.do(Evaluate(model="points", config={}, data=tmp_path, path=path, record=record))
    executor.do(Export(model="points", path=path, record=record, store=StoreLocation(tmp_path), judge=judge))
    assert not [one for one in told if isinstance(one, Failed)]
    found = onnx_file.read(Storage(tmp_path).export(record, SPEC))
    assert found is not None
    assert [verdict.rows for verdict in found.verdicts] == ([200] if evaluated and judge else [])
