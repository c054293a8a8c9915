"""Parity: an export is proven on random batches, and refused if the trace holds numbers of one batch."""

import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.checkpoints import onnx_export, onnx_file, parity, state_dict
from models.checkpoints.onnx_export import export
from models.checkpoints.parity import bounds, random_batches, random_entries
from models.checkpoints.record import Record
from models.checkpoints.storage import Storage
from models.errors import CheckpointError
from models.spec import Array, Entry, ModelSpec
from service.inference.backends.choice import choose
from service.inference.backends.exports import Exports
from service.inference.engine import Engine
from tests.fakes import LINE, InProcess, Line
from tests.serving import no_recipes, serving

LENGTH = 8


class Series(nn.Module):
    """A GRU over series (N, 8), padded with zeros at the end."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(1, 4, batch_first=True)
        self.head = nn.Linear(4, 1)

    def cut(self, samples: Tensor) -> Tensor:
        return samples

    def forward(self, samples: Tensor) -> Tensor:
        hidden, _ = self.gru(self.cut(samples)[..., None])
        outputs: Tensor = self.head(hidden[:, -1])
        return outputs


class CutByInteger(Series):
    def cut(self, samples: Tensor) -> Tensor:
        return samples[:, : int((samples != 0).sum(1).max())]


class CutByItem(Series):
    def cut(self, samples: Tensor) -> Tensor:
        return samples[:, : (samples != 0).sum(1).max().item()]


class CutByIndex(Series):
    """The tracer does not warn of this one."""

    def cut(self, samples: Tensor) -> Tensor:
        longest: Any = (samples != 0).sum(1).max()
        return samples[:, list(range(longest))]


class CutByTensor(Series):
    """The trace keeps a slice by a tensor as it is."""

    def cut(self, samples: Tensor) -> Tensor:
        return samples[:, : (samples != 0).sum(1).max()]


class ScaledByFloat(Series):
    def cut(self, samples: Tensor) -> Tensor:
        return samples / max(1.0, float(samples.abs().max()))


class ScaledByList(Series):
    def cut(self, samples: Tensor) -> Tensor:
        first: float = samples[0].tolist()[0]
        return samples * (1 + first)


class Checked(Series):
    """Its conditions on shapes are booleans taken from tensors: they are harmless."""

    def cut(self, samples: Tensor) -> Tensor:
        if samples.ndim != 2 or samples.shape[1] != LENGTH or samples.shape[0] < 1:
            raise ValueError("series of eight numbers")
        return samples


class Branches(Series):
    """Takes another way for series with padding, of which the example has none."""

    def cut(self, samples: Tensor) -> Tensor:
        return -samples if bool((samples == 0).any()) else samples


class ByBatch(Series):
    """Divides by the batch size."""

    def cut(self, samples: Tensor) -> Tensor:
        return samples / len(samples)


def series(network: type[nn.Module]) -> ModelSpec:
    entry = Entry(shape=(LENGTH,), dtype=np.dtype(np.float32), low=-1, high=1)
    example = np.linspace(0.1, 0.8, 2 * LENGTH, dtype=np.float32).reshape(2, LENGTH)
    return ModelSpec(**{**vars(LINE), "network": network, "entry": entry, "example": example})


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (CutByInteger, "a Python integer taken from a tensor"),
        (CutByItem, "a Python number taken from a tensor"),
        (CutByIndex, "differ by"),
        (ScaledByFloat, "a Python float taken from a tensor"),
        (ScaledByList, "a Python list taken from a tensor"),
        (Branches, "differ by"),
        (ByBatch, "differ by"),
    ],
)
def test_a_network_that_a_trace_does_not_describe_is_not_exported(network: type[nn.Module], reason: str) -> None:
    refused = export(series(network), network().eval())
    assert not refused.onnx
    assert reason in refused.refusal
    if "taken" in reason:
        assert refused.refusal.startswith("test_checkpoints_parity.py, line ")


@pytest.mark.parametrize("network", [Series, Checked, CutByTensor])
def test_a_network_that_its_trace_describes_is_exported(network: type[nn.Module]) -> None:
    made = export(series(network), network().eval())
    assert made.refusal == ""
    assert sorted(len(case.samples) for case in made.cases) == [1, 1, 2, 3, 3, 7]


@pytest.mark.slow
def test_a_series_cut_to_its_length_is_answered_by_pytorch_and_the_reason_is_shown_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec, network = series(CutByInteger), CutByInteger().eval()
    path = tmp_path / "series.pt"
    state_dict.save_record(Record(model="series", sha256=state_dict.save_weights(network.state_dict(), path)), path)
    bodies = [[1.0, *[0.0] * 7], [0.5] * 8, [0.5] * 3 + [0.0] * 5]
    with caplog.at_level(logging.WARNING), serving(tmp_path, {"series": spec}, no_recipes) as client:
        found = client.get("/models/series").json()
        for body in bodies:
            (prediction,) = client.post("/predict/series", json={"inputs": [body]}).json()["predictions"]
            with torch.inference_mode():
                wanted = network(torch.tensor([body])).item()
            assert prediction["value"] == pytest.approx(wanted, abs=1e-6)
    assert (found["backend"], found["fault"]) == ("eager", None)
    assert "a Python integer taken from a tensor" in found["backend_reason"]
    assert caplog.messages.count("run by eager PyTorch") == 1


def test_a_network_in_onnx_runtime_has_no_reason(tmp_path: Path) -> None:
    exports = Exports(Storage(tmp_path / "store"), partial(InProcess, {"line": LINE}))
    path = tmp_path / "line.pt"
    record = Record(model="line", sha256=state_dict.save_weights(Line().state_dict(), path))
    network = choose("auto", "cpu", exports, 1, 8).load("line", LINE, path, record)
    assert (network.backend, network.reason) == ("onnxruntime", "")


def test_the_random_batches_are_the_same_in_each_run_and_reach_the_bounds() -> None:
    spec = series(Series)
    first, again = list(random_batches(spec)), list(random_batches(spec))
    assert [len(batch) for batch in first] == [1, 2, 3, 7]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    rows = np.concatenate(first)
    assert {-1.0, 1.0} <= {float(row[0]) for row in rows if len(set(row)) == 1}
    assert any(row[-1] == 0 and row[0] != 0 for row in rows)  # padded
    assert len({tuple(row) for row in rows}) > 8


@pytest.mark.parametrize(
    ("low", "high", "example", "wanted"),
    [
        (None, None, [[3.0, -5.0]], (-10, 10)),
        (None, None, [[0.1, 0.0]], (-1, 1)),
        (0, None, [[3.0, 5.0]], (0, 10)),
        (0, 100, [[3.0, 5.0]], (0, 100)),
    ],
    ids=["unbounded", "small", "half-bounded", "bounded"],
)
def test_numbers_without_bounds_are_tried_around_the_example(
    low: float | None, high: float | None, example: Sequence[Sequence[float]], wanted: tuple[float, float]
) -> None:
    given = {name: value for name, value in (("low", low), ("high", high)) if value is not None}
    entry = Entry(shape=(2,), dtype=np.dtype(np.float32), **given)
    assert bounds(entry, np.array(example, np.float32)) == wanted


def test_codes_without_bounds_are_those_of_the_example() -> None:
    entry = Entry(shape=(5,), dtype=np.dtype(np.int64))
    entries = random_entries(entry, np.array([[2, 9, 4, 4, 7]]), 50, np.random.default_rng(1))
    assert entries.dtype == np.int64
    assert set(np.unique(entries)) <= set(range(2, 10))


class Words(nn.Module):
    """Has embeddings for ten words, where the bounds of the entry promise a hundred."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 1)

    def forward(self, samples: Tensor) -> Tensor:
        outputs: Tensor = self.embedding(samples).sum(1)
        return outputs


def test_entries_that_the_network_fails_on_are_replaced_with_the_example_in_each_batch_size() -> None:
    entry = Entry(shape=(3,), dtype=np.dtype(np.int64), low=0, high=99)
    spec = ModelSpec(**{**vars(LINE), "network": Words, "entry": entry, "example": np.array([[1, 2, 3]])})
    made = export(spec, Words().eval())
    assert made.onnx
    assert sorted(len(case.samples) for case in made.cases) == [1, 1, 2, 3, 3, 7]
    assert all((case.samples == spec.example).all() for case in made.cases)


def test_a_large_network_is_proven_where_it_is_exported_and_loaded_with_two_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    def compare(run: parity.Run, case: parity.Case) -> None:
        compared.append(len(case.samples))
        parity.compare(run, case)

    monkeypatch.setattr(onnx_export, "compare", compare)
    monkeypatch.setattr(onnx_export, "CHEAP", 100)
    made = export(LINE, Line())
    assert compared == [3, 1, 1, 2, 3, 7]
    assert [len(case.samples) for case in made.cases] == [3, 1]
    onnx_file.write(made, tmp_path / "x")
    kept = onnx_file.read(tmp_path / "x")
    assert kept is not None
    assert [case.outputs.tolist() for case in kept.cases] == [case.outputs.tolist() for case in made.cases]


class Spectrum(Series):
    """The exporter has no complex numbers."""

    def forward(self, samples: Tensor) -> Tensor:
        spectrum = torch.stft(samples, n_fft=4, window=torch.ones(4), center=False, return_complex=True)
        return spectrum.abs().mean(dim=(1, 2))[:, None]


def test_a_network_that_the_exporter_refuses_leaves_its_graph_neither_in_the_reason_nor_in_the_output(
    capfd: pytest.CaptureFixture[str],
) -> None:
    sys.stdout.write("before\n")
    refused = export(series(Spectrum), Spectrum().eval())
    sys.stdout.write("after\n")
    assert refused.refusal == "SymbolicValueError: STFT does not currently support complex types"
    assert capfd.readouterr() == ("before\nafter\n", "")


class Fails(Series):
    def cut(self, samples: Tensor) -> Tensor:  # noqa: ARG002
        raise RuntimeError("cannot read /home/someone/vocabulary.txt")


def test_a_network_that_fails_on_the_example_is_refused_without_a_folders_name() -> None:
    with pytest.raises(CheckpointError, match=r"fails on the model's example: cannot read vocabulary\.txt$"):
        export(series(Fails), Fails())


def test_an_engine_tells_no_batch_apart_from_the_export(tmp_path: Path) -> None:
    """The whole way: exported, proven, loaded, and compared with PyTorch on batches that the proof did not have."""
    spec, network = series(Series), Series().eval()
    path = tmp_path / "series.pt"
    record = Record(model="series", sha256=state_dict.save_weights(network.state_dict(), path))
    backend = choose("auto", "cpu", Exports(Storage(tmp_path), partial(InProcess, {"series": spec})), 1, 8)
    engine = Engine({"series": spec}, backend, 8)
    loaded = engine.load("series", 1, path, record)
    samples: Array = random_entries(spec.tensor, spec.example, 29, np.random.default_rng(5))
    with torch.inference_mode():
        wanted = network(torch.from_numpy(samples)).numpy()
    assert loaded.network.backend == "onnxruntime"
    np.testing.assert_allclose(loaded.network.bulk(samples), wanted, atol=1e-5)
    engine.close()
