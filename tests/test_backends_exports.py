"""Exports: kept once, read whole or not at all, and never a reason not to answer."""

import logging
import threading
import tracemalloc
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from models.catalog import PRETRAINED, specs
from models.checkpoints import onnx_file, state_dict
from models.checkpoints.onnx_export import export
from models.checkpoints.onnx_file import Exported
from models.checkpoints.parity import DisagreementError
from models.checkpoints.record import Record, read_verified, verify
from models.checkpoints.shipped import shipped_path
from models.checkpoints.storage import Storage
from models.errors import CheckpointError
from models.messages import Message, Order
from models.spec import Array, ModelSpec
from service.execution.process import Child
from service.inference.backends import onnx
from service.inference.backends.backend import in_slices
from service.inference.backends.choice import choose
from service.inference.backends.exports import Exports
from service.inference.engine import Engine
from service.inference.pace import Pace
from tests.fakes import LINE, InProcess, Line, save_line, shipped_specs
from tests.lanes import Steady
from training.exports import write_export


class Moody(nn.Module):
    """Takes another way through its own code for some samples: tracing follows one of them only."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([2.0]))

    def forward(self, samples: Tensor) -> Tensor:
        return samples * self.slope if len(samples) > 1 else -samples * self.slope


class Fresh(nn.Module):
    """Network with an operation that ONNX lacks."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([2.0]))

    def forward(self, samples: Tensor) -> Tensor:
        outputs: Tensor = torch.special.bessel_j0(samples) * self.slope
        return outputs


def spec_of(network: type[nn.Module]) -> ModelSpec:
    return ModelSpec(**{**vars(LINE), "network": network})


class Counted(InProcess):
    """Counts the orders to all of them."""

    orders: list[Order[Any]]

    def send(self, order: Order[Any]) -> None:
        self.orders.append(order)
        super().send(order)


def counted(known: Mapping[str, ModelSpec], orders: list[Order[Any]]) -> Child:
    child = Counted(known)
    child.orders = orders
    return child


@pytest.fixture
def line(tmp_path: Path) -> tuple[Path, Record]:
    path = save_line(tmp_path)
    return path, read_verified("line", path)[1]


def save(network: nn.Module, folder: Path) -> tuple[Path, Record]:
    path = folder / "odd.pt"
    sha256 = state_dict.save_weights(network.state_dict(), path)
    return path, Record(model="odd", sha256=sha256)


@pytest.mark.parametrize("name", shipped_specs())
def test_every_shipped_network_runs_in_onnx_runtime_and_agrees_with_pytorch(name: str) -> None:
    spec = specs()[name]
    network, _ = state_dict.load(name, spec, PRETRAINED / f"{name}.pt")
    run = onnx.session(export(spec, network), spec, 1)
    generator = np.random.default_rng(0)
    high = min(spec.tensor.high, 255)
    entries = generator.uniform(max(spec.tensor.low, -255), high, (70, *spec.tensor.shape)).astype(spec.tensor.dtype)
    samples = spec.preprocess(entries)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(samples)).numpy()
    for rows in (1, 2, 70):
        np.testing.assert_allclose(run(samples[:rows]), wanted[:rows], rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_an_export_is_made_once_and_read_by_all(tmp_path: Path, line: tuple[Path, Record]) -> None:
    orders: list[Order[Any]] = []
    start = partial(counted, {"line": LINE}, orders)
    first = Exports(Storage(tmp_path), start).get("line", LINE, *line)
    again = Exports(Storage(tmp_path), start).get("line", LINE, *line)
    assert first.onnx == again.onnx
    assert len(orders) == 1


def test_an_export_that_is_there_is_read_while_another_one_is_made(tmp_path: Path, line: tuple[Path, Record]) -> None:
    asked, finish = threading.Event(), threading.Event()

    class Slow(InProcess):
        def send(self, order: Order[Any]) -> None:
            if asked.is_set():
                finish.wait(20)
            super().send(order)

    exports = Exports(Storage(tmp_path), partial(Slow, {"line": LINE}))
    whole = exports.get("line", LINE, *line)
    other = save_line(tmp_path, "other", slope=3)
    record = replace(read_verified("other", other)[1], model="line")
    asked.set()
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(exports.get, "line", LINE, other, record)
        try:
            assert exports.get("line", LINE, *line).onnx == whole.onnx
            assert not made.done()
        finally:
            finish.set()
        made.result()
    exports.close()


def test_a_damaged_export_is_made_again(tmp_path: Path, line: tuple[Path, Record]) -> None:
    exports = Exports(Storage(tmp_path), partial(InProcess, {"line": LINE}))
    whole = exports.get("line", LINE, *line)
    path = Storage(tmp_path).export(line[1], LINE)
    for content in (b"", path.read_bytes()[:-1], path.read_bytes().replace(b"samples", b"simples")):
        path.write_bytes(content)
        assert onnx_file.read(path) is None
        assert exports.get("line", LINE, *line).onnx == whole.onnx
    exports.close()


@pytest.mark.parametrize("name", specs())
def test_a_shipped_checkpoint_comes_with_the_export_of_its_network(name: str, tmp_path: Path) -> None:
    spec = specs()[name]
    network, record = state_dict.load(name, spec, PRETRAINED / f"{name}.pt")
    orders: list[Order[Any]] = []
    exports = Exports(Storage(tmp_path), partial(counted, specs(), orders))
    shipped = exports.get(name, spec, PRETRAINED / f"{name}.pt", record)
    assert not orders, "run: python -m training.exports"
    made = export(spec, network)
    for case, same in zip(shipped.cases, made.cases, strict=True):
        np.testing.assert_allclose(case.outputs, same.outputs, rtol=1e-5, atol=1e-5)
    onnx.session(shipped, spec, 1)  # compares its outputs
    assert [path.name.split(".")[0] for path in PRETRAINED.glob("*.safetensors")].count(name) == 1


def test_an_export_that_ships_is_used_for_what_it_was_made_of_only(tmp_path: Path) -> None:
    path = save_line(tmp_path)
    made = write_export("line", LINE, tmp_path)
    _, record = read_verified("line", path)
    assert shipped_path(tmp_path, LINE, record) == made
    other_samples = ModelSpec(**{**vars(LINE), "example": np.array([[4.0]], np.float32)})
    others = [
        (spec_of(Moody), record),
        (other_samples, record),
        (LINE, replace(record, arguments={"slope": 3.0})),
        (LINE, replace(record, sha256="0" * 64)),
    ]
    assert made not in [shipped_path(tmp_path, spec, other) for spec, other in others]
    save_line(tmp_path, slope=3.0)
    assert write_export("line", LINE, tmp_path) != made
    assert not made.exists()


def test_the_key_of_an_export_names_all_that_it_depends_on(tmp_path: Path) -> None:
    records = [Record(model="m", sha256="1"), Record(model="m", sha256="2")]
    records += [Record(model="m", sha256="1", arguments={"activation": "tanh"})]
    assert len({Storage(tmp_path).export(record, LINE) for record in records}) == 3


def test_a_checkpoint_that_was_changed_is_refused_though_its_export_is_there(
    tmp_path: Path,
    line: tuple[Path, Record],
) -> None:
    exports = Exports(Storage(tmp_path), partial(InProcess, {"line": LINE}))
    exports.get("line", LINE, *line)
    line[0].write_bytes(b"other bytes")
    with pytest.raises(CheckpointError, match="sha256 differs"):
        exports.get("line", LINE, *line)
    line[0].unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        exports.get("line", LINE, *line)


def test_a_web_process_verifies_weights_without_loading_them(tmp_path: Path) -> None:
    path = tmp_path / "large.pt"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    tracemalloc.start()
    record = verify("line", path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert record == read_verified("line", path)[1]
    assert peak < 2_000_000


def test_a_network_that_fails_is_a_broken_checkpoint(tmp_path: Path) -> None:
    path, record = save(nn.Linear(3, 1), tmp_path)
    exports = Exports(Storage(tmp_path), partial(InProcess, {"odd": LINE}))
    with pytest.raises(CheckpointError, match="does not fit"):
        exports.get("odd", LINE, path, record)


class Silent(InProcess):
    """Dies before it answers."""

    def messages(self, timeout_s: float) -> list[Message]:  # noqa: ARG002
        return []


def test_an_export_process_that_dies_is_reported(tmp_path: Path, line: tuple[Path, Record]) -> None:
    with pytest.raises(CheckpointError, match="gave no answer; it is tried again"):
        Exports(Storage(tmp_path), partial(Silent, {"line": LINE})).get("line", LINE, *line)


def test_close_does_not_wait_for_an_export_in_progress(tmp_path: Path, line: tuple[Path, Record]) -> None:
    reached, opened = threading.Event(), threading.Event()

    class Busy(InProcess):
        """Answers once it may."""

        def messages(self, timeout_s: float) -> list[Message]:
            reached.set()
            assert opened.wait(60)
            return super().messages(timeout_s)

    exports = Exports(Storage(tmp_path), partial(Busy, {"line": LINE}))
    with ThreadPoolExecutor(1) as pool:
        getting = pool.submit(exports.get, "line", LINE, *line)
        assert reached.wait(60)
        exports.close()
        assert not getting.done()
        opened.set()
        assert getting.result(60).onnx
    exports.close()


def loaded(name: Any, tmp_path: Path, network: type[nn.Module]) -> str:
    """The backend that a network of this class ends up with, once its answer has been compared with PyTorch's."""
    spec = spec_of(network)
    path, record = save(network(), tmp_path)
    engine = Engine(
        {"odd": spec}, choose(name, "cpu", Exports(Storage(tmp_path), partial(InProcess, {"odd": spec})), 1, 64), 64
    )
    found = engine.load("odd", 1, path, record)
    samples = np.array([[1.0]], np.float32)
    with torch.inference_mode():
        np.testing.assert_allclose(found.network.run(samples), network()(torch.from_numpy(samples)).numpy(), rtol=1e-5)
    engine.close()
    return found.network.backend


@pytest.mark.parametrize("network", [Moody, Fresh])
def test_a_network_that_onnx_runtime_cannot_stand_in_for_is_run_by_pytorch(
    network: type[nn.Module],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert loaded("auto", tmp_path, network) == "eager"
    assert "run by eager PyTorch" in caplog.text
    with pytest.raises(CheckpointError, match="does not run in ONNX Runtime, set BACKEND=auto"):
        loaded("onnxruntime", tmp_path, network)


@pytest.mark.parametrize(
    ("name", "backend"),
    [("auto", "onnxruntime"), ("onnxruntime", "onnxruntime"), ("eager", "eager")],
)
def test_the_setting_chooses_the_backend(name: str, backend: str, tmp_path: Path) -> None:
    assert loaded(name, tmp_path, Line) == backend


def test_a_store_that_cannot_be_written_is_no_reason_not_to_answer(tmp_path: Path) -> None:
    (tmp_path / "exports").touch()  # a file where the folder should be
    assert loaded("auto", tmp_path, Line) == "eager"


def test_onnx_runtime_on_a_gpu_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set DEVICE=cpu or BACKEND=auto"):
        choose("onnxruntime", "cuda:0", Exports(Storage(tmp_path)), 1, 64)


@pytest.mark.parametrize("change", [0.001, float("nan")])
def test_an_export_that_answers_differently_is_refused(change: float) -> None:
    made = export(LINE, Line())
    for at, case in enumerate(made.cases):
        others = made.cases[:at], made.cases[at + 1 :]
        wrong = replace(case, outputs=case.outputs * np.float32(1 + change))
        with pytest.raises(DisagreementError, match=f"of a batch of {len(case.samples)} differ by"):
            onnx.session(replace(made, cases=[*others[0], wrong, *others[1]]), LINE, 1)
    with pytest.raises(DisagreementError, match="answers"):
        onnx.session(replace(made, cases=[replace(made.cases[0], outputs=made.cases[0].outputs[:1])]), LINE, 1)
    with pytest.raises(DisagreementError, match="ONNX Runtime"):
        onnx.session(replace(made, onnx=b"no model"), LINE, 1)


def sessions_of(pace: Pace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of threads of each session that one, two and eight web processes with six cores make."""
    asked: list[int] = []

    def session(made: Exported, spec: ModelSpec, threads: int) -> Any:
        asked.append(threads)
        return onnxruntime

    monkeypatch.setattr(onnx, "session", session)
    monkeypatch.setattr(onnx, "measured", lambda *_, **__: (0, pace))
    path = save_line(tmp_path)
    record = read_verified("line", path)[1]
    for processes in (1, 2, 8):
        choose(
            "auto", "cpu", Exports(Storage(tmp_path), partial(InProcess, {"line": LINE})), processes, 64, cores=6
        ).load(
            "line",
            LINE,
            path,
            record,
        )
    return asked


def test_bulk_has_a_session_of_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sessions_of(Steady(1000), tmp_path, monkeypatch) == [6, 1, 3, 1, 1]


def test_a_network_whose_bulk_is_cut_has_one_session_and_one_copy_of_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sessions_of(Steady(64), tmp_path, monkeypatch) == [6, 3, 1]


def test_an_export_that_fails_on_a_larger_batch_is_run_by_pytorch(
    line: tuple[Path, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise onnxruntime.capi.onnxruntime_pybind11_state.Fail("shape")

    monkeypatch.setattr(onnx, "measured", fail)
    backend = choose("auto", "cpu", Exports(Storage(tmp_path), partial(InProcess, {"line": LINE})), 1, 64)
    assert backend.load("line", LINE, *line).backend == "eager"


def test_bulk_is_computed_in_even_slices_side_by_side() -> None:
    met = threading.Barrier(3)
    sizes: list[int] = []

    def run(samples: Array) -> Array:
        sizes.append(len(samples))
        met.wait(20)  # until all three threads compute
        return samples + 1

    with ThreadPoolExecutor(2) as pool:
        bulk = in_slices(run, 4, pool, 3)
        for count in (5, 13, 24):
            samples = np.arange(count, dtype=np.float32)[:, None]
            np.testing.assert_array_equal(bulk(samples), samples + 1)
    assert sorted(sizes[:3]) == [1, 2, 2]
    assert sorted(sizes[3:9]) == [2, 2, 2, 2, 2, 3]
    assert sizes[9:] == [4] * 6
