"""Numeric forms in a web process: the gate lets them in, and batches take the fastest one."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.checkpoints import onnx_file, openvino_session
from models.checkpoints.onnx_file import Exported
from models.checkpoints.parity import Case, DisagreementError
from models.checkpoints.verdict import Form, Limits, Verdict
from models.spec import Array
from service.api.form_schemas import form_info
from service.inference.backends.backend import Network
from service.inference.backends.forms import Forms, Policy, Switched, Wanted, let_in, likewise, with_forms
from service.inference.pace import SLICE_S, Pace

RUNTIME = "openvino 1.2"
SAMPLES = np.ones((1, 2), np.float32)
GOOD = Verdict(form="bf16", runtime=RUNTIME, dataset="d", rows=100, changed=0, largest_change=0.01)
QUICK = replace(GOOD, form="int8")
EXPORTED = Exported(b"plain", [Case(SAMPLES, SAMPLES)], quantised=b"whole", verdicts=[GOOD, QUICK])


class Clock:
    """A clock that only computing moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def run(self, fixed: float, each: float, factor: float = 1.0) -> Callable[[Array], Array]:
        """A network that takes so long for a batch and for each of its samples."""

        def compute(samples: Array) -> Array:
            self.now += fixed + each * len(samples)
            return samples * np.float32(factor)

        return compute


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """OpenVINO that computes 1.01 times the samples in bf16, 1.02 times in int8, which suits large batches only."""
    clock = Clock()

    def open_form(onnx: bytes, form: Form, threads: int) -> Callable[[Array], Array]:
        assert onnx == {"bf16": b"plain", "int8": b"whole"}[form]
        assert threads in {1, 2}
        return {"bf16": clock.run(3e-4, 0.5e-4, 1.01), "int8": clock.run(12e-4, 0.3e-4, 1.02)}[form]

    monkeypatch.setattr(openvino_session, "open_form", open_form)
    monkeypatch.setattr(openvino_session, "runtime", lambda: RUNTIME)
    monkeypatch.setattr(openvino_session, "forms", lambda: ("bf16", "int8"))
    return clock


def chosen(
    clock: Clock, exported: Exported = EXPORTED, wanted: Wanted = "auto"
) -> tuple[Callable[[Array], Array], Forms]:
    return faster(clock.run(1e-4, 1e-4), clock, exported, wanted)


def faster(
    plain: Callable[[Array], Array], clock: Clock, exported: Exported = EXPORTED, wanted: Wanted = "auto"
) -> tuple[Callable[[Array], Array], Forms]:
    forms = let_in(exported, Policy(wanted=wanted))
    timed = wanted == "auto"
    return with_forms(plain, exported, forms, timed=timed, samples=SAMPLES, max_batch=64, threads=1, clock=clock)


def factor(run: Callable[[Array], Array], size: int) -> float:
    return float(run(np.ones((size, 2), np.float32))[0, 0])


def test_each_batch_takes_the_form_that_was_fastest_for_its_size(clock: Clock) -> None:
    run, forms = chosen(clock)
    assert forms.steps == [(1, "fp32"), (16, "bf16"), (64, "int8")]
    assert [factor(run, size) for size in (1, 15, 16, 63, 64, 100)] == pytest.approx([1, 1, 1.01, 1.01, 1.02, 1.02])
    assert not forms.refusals
    same = likewise(clock.run(1e-4, 1e-4), EXPORTED, forms, 2)
    assert [factor(same, size) for size in (1, 16, 64)] == pytest.approx([1, 1.01, 1.02])


def test_a_form_that_is_never_faster_is_not_used(clock: Clock) -> None:
    run, forms = faster(clock.run(0, 1e-7), clock)
    assert forms.steps == [(1, "fp32")]
    assert forms.refusals == dict.fromkeys(["bf16", "int8"], "not faster in this process")
    assert factor(run, 64) == 1


def test_a_slow_network_is_not_timed_with_large_batches(clock: Clock) -> None:
    _, forms = faster(clock.run(0, 0.01), clock)
    assert forms.steps == [(1, "bf16")]
    assert clock.now < 1


@pytest.mark.parametrize(
    ("wanted", "steps"), [("fp32", [(1, "fp32")]), ("bf16", [(1, "bf16")]), ("int8", [(1, "int8")])]
)
def test_a_form_that_is_named_computes_every_batch(wanted: Wanted, steps: list[tuple[int, str]], clock: Clock) -> None:
    _, forms = chosen(clock, wanted=wanted)
    assert forms.steps in (steps, tuple(steps))
    assert set(forms.refusals) == {"bf16", "int8"} - {wanted}
    assert set(forms.refusals.values()) == {f"TORCHLOOP_FORM is {wanted}"}


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (replace(GOOD, changed=1), "changes 1 of 100 labels, of which 0 may change"),
        (replace(GOOD, largest_change=0.03), "changes a probability by 0.03, more than 0.02"),
        (replace(GOOD, largest_change=float("nan")), "changes a probability by nan, more than 0.02"),
        (replace(GOOD, rows=0), "judged on no example"),
        (replace(GOOD, fault="it broke"), "it broke"),
        (replace(GOOD, runtime="openvino 1.1"), "judged with openvino 1.1, and openvino 1.2 is installed"),
    ],
)
def test_the_gate_keeps_a_form_out_and_says_why(verdict: Verdict, reason: str, clock: Clock) -> None:
    _, forms = chosen(clock, replace(EXPORTED, verdicts=[verdict]), wanted="bf16")
    assert forms.refusals == {"bf16": reason}
    assert forms.steps == ((1, "fp32"),)


def test_the_limits_of_the_gate_are_settings() -> None:
    verdict = replace(GOOD, changed=2, largest_change=0.05)
    assert not Limits(labels=2, probability=0.05).refusal(verdict, RUNTIME)
    assert Limits(labels=2).refusal(verdict, RUNTIME)
    assert Limits(probability=0.05).refusal(verdict, RUNTIME)
    assert Limits().refusal(GOOD, "") == "judged with openvino 1.2, and no such runtime is installed"


def test_a_form_that_answers_wrongly_here_or_does_not_load_is_not_used(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: object) -> Callable[[Array], Array]:
        return clock.run(0, 0, 1.5)

    def broken(*_: object) -> Callable[[Array], Array]:
        raise DisagreementError("OpenVINO: no")

    for open_form, reason in ((wrong, "differ by 0.5"), (broken, "OpenVINO: no")):
        monkeypatch.setattr(openvino_session, "open_form", open_form)
        _, forms = chosen(clock)
        assert forms.steps == ((1, "fp32"),)
        assert all(reason in found for found in forms.refusals.values())
    monkeypatch.setattr(openvino_session, "forms", lambda: ())
    assert set(chosen(clock)[1].refusals.values()) == {"this processor has no instructions for it"}


def test_verdicts_and_the_quantised_network_are_kept_with_the_export(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    onnx_file.write(EXPORTED, path)
    found = onnx_file.read(path)
    assert found is not None
    assert (found.quantised, found.verdicts) == (b"whole", [GOOD, QUICK])
    for old, new in ((b"whole", b"hole!"), (b'changed\\": 0', b'changed\\": 1')):
        onnx_file.write(EXPORTED, path)
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new))
        assert onnx_file.read(path) is None
    onnx_file.write(replace(EXPORTED, quantised=b"", verdicts=()), path)
    assert onnx_file.read(path)


def test_the_forms_are_described_with_their_verdicts() -> None:
    assert form_info(None) is None
    forms = Forms(steps=[(1, "fp32"), (4, "bf16")], verdicts=[GOOD, QUICK], refusals={"int8": "slow"})
    info = form_info(Switched(len, forms))
    assert info is not None
    assert [(step.samples, step.form) for step in info.steps] == [(1, "fp32"), (4, "bf16")]
    assert [(verdict.form, verdict.refusal, verdict.rows) for verdict in info.verdicts] == [
        ("bf16", None, 100),
        ("int8", "slow", 100),
    ]


STEPS: Forms = Forms(steps=((1, "fp32"), (4, "bf16")))


@pytest.mark.parametrize(
    ("size", "whole", "form"),
    [(1, True, "fp32"), (3, True, "fp32"), (4, True, "bf16"), (99, True, "bf16"), (3, False, "fp32"), (4, False, None)],
)
def test_the_form_of_a_batch_follows_from_its_size_unless_it_was_cut(size: int, whole: bool, form: str | None) -> None:
    network = Switched(len, STEPS)
    assert network.form_of(size, time.perf_counter(), whole=whole) == form
    assert Switched(len, Forms(steps=((1, "int8"),))).form_of(size, time.perf_counter(), whole=False) == "int8"


def test_the_form_of_a_batch_that_began_before_the_forms_were_these_is_not_known() -> None:
    network = Switched(len, STEPS)
    assert network.form_of(1, network.since - 1e-6, whole=True) is None
    assert network.form_of(1, network.since, whole=True) == "fp32"
    network.since = math.inf  # they are being replaced
    assert network.form_of(1, time.perf_counter(), whole=True) is None


def test_a_form_begins_at_a_size_of_batches() -> None:
    assert [Switched(len, STEPS).least_of(form) for form in ("fp32", "bf16", "int8", None)] == [1, 4, 1, 1]


def test_a_network_knows_whether_it_computed_a_batch_as_one() -> None:
    began = time.perf_counter()
    assert Network(len, len, "eager").form_of(1, began) is None
    network = Network(len, len, "onnxruntime", brief=8, pace=Pace(SLICE_S / 6), switched=Switched(len, STEPS))
    later = time.perf_counter()
    assert [network.form_of(size, later) for size in (1, 6, 7, 9)] == ["fp32", "bf16", None, None]
