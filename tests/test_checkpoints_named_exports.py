"""Exports of networks with named inputs and outputs: proven on random samples of the signature, or refused."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.artifacts import Artifacts
from models.checkpoints import onnx_file
from models.checkpoints.onnx_export import export
from models.checkpoints.parity import DisagreementError
from models.checkpoints.record import Record, read_verified
from models.checkpoints.storage import Storage
from models.coding import Coder
from models.eager import eager
from models.random_samples import random_sample
from models.samples import Columns
from models.spec import Array, ModelSpec
from service.inference.backends.choice import choose
from service.inference.backends.exports import Exports
from service.inference.backends.onnx import session
from service.inference.engine import Engine
from tests.fakes import InProcess
from tests.serving import no_recipes, serving
from tests.signatures import ARTIFACTS, HEADS, SERIES, SIGNATURES, TEXT, Bag, Heads, Series, save, words_of

each_signature = pytest.mark.parametrize("name", SIGNATURES)


class CutByInteger(Series):
    """Cuts the batch to its longest series by a Python integer, which the trace would keep as a constant."""

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        return super().forward(series[:, : int(lengths.max())], lengths)


class OneAnswer(Heads):
    """Returns one of the two outputs that the spec names."""

    def forward(self, samples: Tensor) -> Any:
        return self.kind(samples)


def made(spec: ModelSpec, artifacts: Artifacts, network: Any = None) -> tuple[Any, onnx_file.Exported]:
    torch.manual_seed(0)
    network = (network or spec.network()).eval()
    return network, export(spec, network, artifacts)


def arrays_of(values: Any) -> Mapping[str, Any]:
    return values.arrays if isinstance(values, Columns) else {"": values}


def assert_close(found: Any, wanted: Any) -> None:
    for name, column in arrays_of(wanted).items():
        for row, other in zip(arrays_of(found)[name], column, strict=True):
            np.testing.assert_allclose(row, other, rtol=1e-4, atol=1e-5)


@each_signature
def test_an_export_answers_new_random_samples_like_pytorch(name: str) -> None:
    spec, artifacts = SIGNATURES[name], ARTIFACTS.get(name, {})
    network, exported = made(spec, artifacts)
    assert exported.refusal == ""
    assert {len(case.samples) for case in exported.cases} > {1}
    rng, coder = np.random.default_rng(7), Coder(spec, artifacts)
    samples = Columns.of([coder(random_sample(spec, rng)) for _ in range(30)])
    assert_close(session(exported, spec, 1)(samples), eager(network, spec)(samples))


def test_an_export_answers_series_longer_than_all_that_were_compared() -> None:
    network, exported = made(SERIES, {})
    coder = Coder(SERIES, {})
    rows: list[Array] = [np.full((length, 2), 0.01 * length, np.float32) for length in (1, 500, 90)]
    samples = Columns.of([coder({"series": row}) for row in rows])
    assert_close(session(exported, SERIES, 1)(samples), eager(network, SERIES)(samples))


@each_signature
def test_the_file_of_an_export_keeps_all_arrays(name: str, tmp_path: Path) -> None:
    spec = SIGNATURES[name]
    _, exported = made(spec, ARTIFACTS.get(name, {}))
    onnx_file.write(exported, tmp_path / "x.safetensors")
    kept = onnx_file.read(tmp_path / "x.safetensors")
    assert kept is not None
    for case, other in zip(kept.cases, exported.cases, strict=True):
        assert set(arrays_of(case.samples)) == set(arrays_of(other.samples))
        assert_close(case.outputs, other.outputs)
    session(kept, spec, 1)


def test_an_export_whose_stored_outputs_differ_is_refused() -> None:
    _, exported = made(HEADS, {})
    case = exported.cases[0]
    wrong = Columns({**case.outputs.arrays, "size": case.outputs.arrays["size"] + 1})
    with pytest.raises(DisagreementError, match="differ by"):
        session(replace(exported, cases=[replace(case, outputs=wrong)]), HEADS, 1)


def test_a_length_that_the_trace_would_keep_ends_in_eager_pytorch_with_the_reason(tmp_path: Path) -> None:
    spec = replace(SERIES, network=CutByInteger)
    _, exported = made(spec, {})
    assert not exported.onnx
    assert "a Python integer taken from a tensor" in exported.refusal
    save(tmp_path, "series")
    rows = [{"series": [[float(length), 1.0]] * length} for length in (1, 30, 3)]
    with serving(tmp_path, {"series": spec}, recipes=no_recipes) as client:
        model = client.get("/models/series").json()
        assert model["backend"] == "eager"
        assert "a Python integer taken from a tensor" in model["backend_reason"]
        together = client.post("/predict/series", json={"inputs": rows}).json()["predictions"]
        for row, wanted in zip(rows, together, strict=True):
            (alone,) = client.post("/predict/series", json={"inputs": [row]}).json()["predictions"]
            assert alone["value"] == pytest.approx(wanted["value"], abs=1e-6)


def test_random_texts_are_encoded_with_the_artifacts_of_the_version() -> None:
    """With more words than the network has vectors for, the example of the batch takes their place."""
    words = ["<unknown>", *(f"word{i}" for i in range(300)), "good", "film"]
    _, exported = made(TEXT, {"words": words, "labels": ["a", "b"]}, Bag(words=len(words)))
    assert exported.refusal == ""
    ids = np.concatenate([case.samples.arrays["ids"].reshape(-1) for case in exported.cases])
    assert words.index("film") in ids


def test_the_export_is_kept_by_its_artifacts(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    paths = {
        storage.export(Record(model="text", sha256="0", artifacts={"words": words}), TEXT) for words in (["a"], ["b"])
    }
    assert len(paths) == 2


@pytest.mark.parametrize(
    ("network", "said"),
    [
        pytest.param(OneAnswer, "the network returns 1 outputs; `outputs` has 2", id="too few outputs"),
        pytest.param(partial(Bag), "unexpected keyword argument 'samples'", id="other arguments"),
    ],
)
def test_a_network_that_does_not_fit_its_signature_is_named(tmp_path: Path, network: Any, said: str) -> None:
    path = save(tmp_path, "heads")
    if network is not OneAnswer:
        path.unlink()
        save(tmp_path, "text").rename(path)
        (tmp_path / "heads.json").unlink()
    with serving(tmp_path, {"heads": replace(HEADS, network=network)}, recipes=no_recipes) as client:
        (reason,) = client.get("/health/ready").json()["reasons"].values()
    assert said in reason


def test_the_artifacts_of_a_version_are_unpacked_once_when_it_is_loaded(tmp_path: Path) -> None:
    """Those of a tokenizer have megabytes; each Coder would hold some of its own."""
    given: list[Artifacts] = []

    def words(sample: Mapping[str, Any], artifacts: Artifacts) -> Mapping[str, Any]:
        given.append(artifacts)
        return words_of(sample, artifacts)

    path = save(tmp_path, "text")
    spec = replace(TEXT, encode=words)
    exports = Exports(Storage(tmp_path / "store"), partial(InProcess, {"text": spec}))
    record = read_verified("text", path)[1]
    exports.get("text", spec, path, record)
    given.clear()
    engine = Engine({"text": spec}, choose("onnxruntime", "cpu", exports, 1, 8), 8)
    loaded = engine.load("text", 1, path, record)
    engine.close()
    assert given
    assert {id(artifacts) for artifacts in given} == {id(loaded.artifacts)}
