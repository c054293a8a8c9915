"""A loaded network answers in float32 at once, and in the form that is let in a little later."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from models.checkpoints import openvino_session
from models.checkpoints.onnx_export import export
from models.checkpoints.onnx_file import Exported
from models.checkpoints.onnx_session import open_session
from models.checkpoints.record import Record
from models.checkpoints.storage import Storage
from models.checkpoints.verdict import Form, Verdict
from models.spec import Array
from service.inference.backends.exports import Exports
from service.inference.backends.forms import Policy
from service.inference.backends.onnx import OnnxBackend
from tests.fakes import LINE

VERDICT = Verdict(form="bf16", runtime="openvino 1.2", dataset="d", rows=10)
MADE = replace(export(LINE, nn.Linear(1, 1).eval()), verdicts=[VERDICT])
RECORD = Record(model="line", sha256="")
SAMPLES = np.array([[1.0], [2.0], [3.0]], np.float32)


class Given(Exports):
    """The export that is given, without a file."""

    def get(self, *_: Any, **__: Any) -> Exported:
        return MADE


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads of each network that was opened in bfloat16, which computes 1.01 times the outputs."""
    threads_of: list[int] = []

    def open_form(onnx: bytes, form: Form, threads: int) -> Callable[[Array], Array]:
        threads_of.append(threads)
        run = open_session(onnx, threads)
        return lambda samples: run(samples) * np.float32(1.01)

    monkeypatch.setattr(openvino_session, "open_form", open_form)
    monkeypatch.setattr(openvino_session, "runtime", lambda: "openvino 1.2")
    monkeypatch.setattr(openvino_session, "forms", lambda: ("bf16",))
    return threads_of


def backend(tmp_path: Path, threads: int, wanted: Policy) -> OnnxBackend:
    return OnnxBackend(Given(Storage(tmp_path)), threads, 2, 8, None, wanted)


@pytest.mark.parametrize(
    ("threads", "is_small", "opens"), [(1, False, [1]), (2, False, [2, 1]), (1, True, [1]), (2, True, [1])]
)
def test_requests_and_bulk_are_computed_in_the_form_that_is_let_in(
    threads: int,
    is_small: bool,
    opens: list[int],
    tmp_path: Path,
    opened: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openvino_session, "is_small", lambda _: is_small)
    plain = open_session(MADE.onnx, 1)(SAMPLES)
    made = backend(tmp_path, threads, Policy(wanted="bf16"))
    network = made.load("line", LINE, tmp_path, RECORD)
    made.settle()
    assert opened == opens
    assert network.switched is not None
    assert network.switched.forms.steps == [(1, "bf16")]
    assert network.form_of(30, network.switched.since) == "bf16"
    assert network.form_of(30, network.switched.since - 1e-6) is None  # it may have been computed in float32
    np.testing.assert_allclose(network.run(SAMPLES), plain * 1.01, rtol=1e-5)
    many = np.tile(SAMPLES, (10, 1))
    np.testing.assert_allclose(network.bulk(many), np.tile(plain, (10, 1)) * 1.01, rtol=1e-5)


def test_without_a_wish_nothing_is_opened(tmp_path: Path, opened: list[int]) -> None:
    made = backend(tmp_path, 1, Policy())
    network = made.load("line", LINE, tmp_path, RECORD)
    made.settle()
    assert not opened
    assert network.switched is not None
    assert network.switched.forms.refusals == {"bf16": "TORCHLOOP_FORM is fp32"}


def test_a_form_that_fails_when_it_is_timed_is_not_used(
    tmp_path: Path, opened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_session(MADE.onnx, 1)

    def open_form(*_: object) -> Callable[[Array], Array]:
        def compute(samples: Array) -> Array:
            if len(samples) == 8:
                raise RuntimeError("no memory")
            outputs: Array = run(samples)
            return outputs

        return compute

    monkeypatch.setattr(openvino_session, "open_form", open_form)
    made = backend(tmp_path, 1, Policy(wanted="auto"))
    network = made.load("line", LINE, tmp_path, RECORD)
    made.settle()
    assert network.switched is not None
    assert network.switched.forms.refusals == {"bf16": "OpenVINO: no memory"}
    np.testing.assert_allclose(network.run(SAMPLES), run(SAMPLES))


def test_a_backend_that_is_closed_opens_no_form_any_more(tmp_path: Path, opened: list[int]) -> None:
    closed = OnnxBackend(Given(Storage(tmp_path)), 1, 2, 8, None, Policy(wanted="bf16"), rest_s=3600.0)
    network = closed.load("line", LINE, tmp_path / "line.pt", RECORD)
    closed.close()  # does not wait for the rest
    assert opened == []
    assert network.run(SAMPLES).shape == (3, 1)
