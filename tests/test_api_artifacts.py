"""Artifacts of a version: its functions get them, and a promotion swaps them together with the weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.applications import Starlette
from starlette.testclient import TestClient
from torch import Tensor, nn
from typing_extensions import TypedDict

from models.checkpoints import artifact_files, state_dict
from models.checkpoints.record import Record, verify
from models.outputs import Value
from models.signature import Number
from models.spec import Array, ModelSpec, Prediction
from service.api.bodies import RequestBodies
from service.api.predict import PredictRoute
from service.execution.threads import Threads
from service.inference.admission import Admission
from service.inference.backends.pytorch import EagerBackend
from service.inference.batcher import Batcher
from service.inference.decoding import Decoder
from service.inference.engine import Engine, Loaded
from service.inference.pipeline import Pipeline, networks_of
from service.inference.working_set import WorkingSet
from service.register import register
from service.store.database import Store
from service.telemetry.metrics import Metrics
from tests.fakes import LINE
from tests.problems import is_problem
from tests.serving import no_recipes, serving
from tests.signatures import HEADS, TEXT, VOCABULARY, Bag, Heads, save

PROMOTES = 2.0  # the value of x at which the other version goes live while the request is encoded


class WithUnit(TypedDict):
    """A value and its unit."""

    value: float
    unit: str


class Weighted(nn.Module):
    """The number of the artifacts + 10 times that of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, number: Tensor) -> Tensor:
        return number[:, None] + 10 * self.weight


def described(rows: Array, artifacts: Mapping[str, Any]) -> Sequence[Prediction]:
    """Tell the number of the artifacts that describe it, in thousands."""
    return [{"value": float(row[0]) + 1000 * number_of(artifacts)} for row in rows]


def number_of(artifacts: Mapping[str, Any]) -> float:
    """The number in the record, or the first one of an array that is a file."""
    return float(np.ravel(artifacts["number"])[0])


def spec_of(before_encoding: Callable[[float], None]) -> ModelSpec:
    def encode(sample: Mapping[str, Any], artifacts: Mapping[str, Any]) -> Mapping[str, Any]:
        before_encoding(sample["x"])
        return {"number": np.float32(number_of(artifacts))}

    def postprocess(outputs: Array, artifacts: Mapping[str, Any]) -> Array:
        values: Array = (outputs + 100 * number_of(artifacts)).astype(np.float32)
        return values

    return ModelSpec(
        summary="tells which artifacts and weights answer",
        network=Weighted,
        inputs={"x": Number()},
        encode=encode,
        postprocess=postprocess,
        describe=described,
        prediction=Value,
        example=[{"x": 1}],
    )


class Served:
    """The predict route around an engine with two versions; `client` sends requests."""

    def __init__(self, folder: Path, *, large: bool) -> None:
        self._large = large
        self.spec = spec_of(self._before_encoding)
        self.engine = Engine({"numbered": self.spec}, EagerBackend("cpu", 1, 64), 64)
        self.versions = {number: self._loaded(folder, number) for number in (1, 2)}
        self.engine.swap(self.versions[1])
        metrics, self.threads = Metrics(None), Threads()
        batcher = Batcher(networks_of(self.engine, metrics), max_batch=64)
        pipeline = Pipeline(
            decoder=Decoder(1000, self.threads),
            admission=Admission(batcher, 100, lambda: 0.0),
            batcher=batcher,
            metrics=metrics,
            timeout_s=60,
            networks=WorkingSet(self.engine),
        )
        bodies = RequestBodies(10_000, 10_000, pipeline.decoder, self.threads)
        route = PredictRoute({"numbered": self.spec}, bodies, pipeline, self.threads, self._pinned)
        self.client = TestClient(Starlette(routes=route.routes()))

    def answer(self, x: float, query: str = "") -> tuple[int, float]:
        """Return the version that answered, and the value."""
        response = self.client.post(f"/predict/numbered{query}", json={"inputs": [{"x": x}]})
        return int(response.headers["x-model-version"]), response.json()["predictions"][0]["value"]

    def close(self) -> None:
        self.engine.close()
        self.threads.close()

    def _before_encoding(self, x: float) -> None:
        if x == PROMOTES:
            self.engine.swap(self.versions[2])

    def _loaded(self, folder: Path, number: int) -> Loaded:
        network, path = Weighted(), folder / f"{number}.pt"
        nn.init.constant_(network.weight, number)
        sha256 = state_dict.save_weights(network.state_dict(), path)
        artifacts, files = artifact_files.divided({"number": np.full(1_200_000 if self._large else 1, number)})
        assert bool(files) == self._large
        artifact_files.write(files, folder)
        record = Record(model="numbered", sha256=sha256, artifacts=artifacts)
        return self.engine.load("numbered", number, path, record)

    async def _pinned(self, _: str, number: int) -> Loaded:
        return self.versions[number]


@pytest.fixture(params=[False, True], ids=["in the record", "in a file"])
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    served = Served(tmp_path, large=request.param)
    yield served
    served.close()


def test_every_function_gets_the_artifacts_of_the_version_that_answers(served: Served) -> None:
    assert served.answer(1) == (1, 1111)
    served.engine.swap(served.versions[2])
    assert served.answer(1) == (2, 2222)
    assert served.answer(1, "?version=1") == (1, 1111)


def test_a_promotion_between_encoding_and_computing_does_not_mix_weights_and_artifacts(served: Served) -> None:
    assert served.answer(PROMOTES) == (1, 1111)
    assert served.answer(1) == (2, 2222)


def test_a_one_tensor_model_may_describe_with_artifacts(tmp_path: Path) -> None:
    def named(rows: Array, artifacts: Mapping[str, Any]) -> Sequence[Prediction]:
        return [{"value": float(row[0]), **artifacts} for row in rows]

    path = tmp_path / "line.pt"
    sha256 = state_dict.save_weights(LINE.network().state_dict(), path)
    state_dict.save_record(Record(model="line", sha256=sha256, artifacts={"unit": "m"}), path)
    with serving(tmp_path, {"line": replace(LINE, describe=named, prediction=WithUnit)}, recipes=no_recipes) as client:
        predictions = client.post("/predict/line", json={"inputs": [[1]]}).json()["predictions"]
        assert predictions == [{"value": 3.0, "unit": "m"}]
        assert client.post("/explain/line", json={"inputs": [[1]]}).status_code == 200


def test_versions_name_their_artifacts_and_the_shipped_record_brings_them(tmp_path: Path) -> None:
    save(tmp_path, "text", artifacts={**VOCABULARY, "labels": ["no", "yes"]})
    with serving(tmp_path, {"text": TEXT}, recipes=no_recipes) as client:
        assert client.get("/models/text/versions/1").json()["artifacts"] == ["labels", "weight", "words"]
        (prediction,) = client.post("/predict/text", json={"inputs": ["good"]}).json()["predictions"]
        assert prediction["label"] in {"no", "yes"}


def test_weights_without_their_artifacts_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, "text")
    with serving(tmp_path, {"text": TEXT}, recipes=no_recipes) as client:
        response = client.post("/models/text/versions", content=path.read_bytes())
        assert is_problem(response, 422, "come with labels, weight, words, which a state_dict file does not carry")
        assert len(client.get("/models/text/versions").json()["versions"]) == 1


def test_the_first_weights_of_a_model_that_needs_artifacts_are_refused(tmp_path: Path) -> None:
    def needs(rows: Array, artifacts: Mapping[str, Any]) -> Sequence[Prediction]:
        return [{"value": float(row[0]) + artifacts["number"]} for row in rows]

    path = tmp_path / "weights"
    state_dict.save_weights(LINE.network().state_dict(), path)
    with serving(tmp_path, {"line": replace(LINE, describe=needs)}, recipes=no_recipes) as client:
        response = client.post("/models/line/versions", content=path.read_bytes())
        assert is_problem(response, 422, "models/line.py needs artifacts, which a state_dict file does not carry")
        assert not client.get("/models/line/versions").json()["versions"]


def large_labels(*first: str) -> list[str]:
    """Return labels that are too large for the record; the network knows the first ones."""
    return [*first, "-" * 5_000_000]


def registered(store: Path, folder: Path, *labels: str) -> Path:
    """Register a version of the text model whose labels are a file, and return the file's path in the store."""
    path = save(folder, "text", ord(labels[0]), {**VOCABULARY, "labels": large_labels(*labels)})
    opened = Store(store)
    register(opened, "text", path)
    opened.close()
    (name,) = artifact_files.names(verify("text", path))
    return store / "checkpoints" / "text" / name


def label(client: TestClient) -> str:
    (prediction,) = client.post("/predict/text", json={"inputs": ["good"]}).json()["predictions"]
    return str(prediction["label"])


def test_a_promotion_swaps_weights_and_files_and_a_broken_file_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.register.specs", lambda: {"text": TEXT})
    shipped, store = tmp_path / "shipped", tmp_path / "store"
    shipped.mkdir()
    with serving(shipped, {"text": TEXT, "line": LINE}, recipes=no_recipes, store=store) as client:
        first, second = registered(store, tmp_path, "a", "b"), registered(store, tmp_path, "c", "d")
        for number, labels in ((1, "ab"), (2, "cd")):
            assert client.post("/models/text/promote", json={"version": number}).status_code == 200
            assert label(client) in set(labels)
        assert client.get("/models/text/versions/1").json()["artifacts"] == ["labels", "weight", "words"]
        content = first.read_bytes()
        first.write_bytes(content.replace(b"a", b"x", 1))
        for call, body in (("promote", {"version": 1}), ("rollback", None)):
            response = client.post(f"/models/text/{call}", json=body)
            assert is_problem(response, 409, "the file of the artifact labels, is not the one that the record names")
        second.unlink()
        assert label(client) in set("cd")  # loaded before
        first.write_bytes(content)
        assert client.post("/models/text/rollback").json()["live"] == 1
        assert label(client) in set("ab")


def test_a_missing_file_is_the_fault_of_its_model_alone(tmp_path: Path) -> None:
    save(tmp_path, "text", artifacts={**VOCABULARY, "labels": large_labels("a", "b")})
    (path,) = tmp_path.glob("*.artifact")
    path.unlink()
    state_dict.save_weights(LINE.network().state_dict(), tmp_path / "line.pt")
    with serving(tmp_path, {"text": TEXT, "line": LINE}, recipes=no_recipes) as client:
        response = client.post("/predict/text", json={"inputs": ["good"]})
        assert is_problem(response, 503, f"{path.name}, the file of the artifact labels, cannot be read")
        assert str(tmp_path) not in response.text
        assert client.post("/predict/line", json={"inputs": [[1]]}).status_code == 200


def test_a_shipped_checkpoint_brings_its_files_to_the_store(tmp_path: Path) -> None:
    shipped, store = tmp_path / "shipped", tmp_path / "store"
    shipped.mkdir()
    save(shipped, "text", artifacts={**VOCABULARY, "labels": large_labels("a", "b")})
    with serving(shipped, {"text": TEXT}, recipes=no_recipes, store=store) as client:
        assert label(client) in set("ab")
    for path in shipped.iterdir():
        path.unlink()
    with serving(shipped, {"text": TEXT}, recipes=no_recipes, store=store) as client:
        assert label(client) in set("ab")


def test_a_checkpoint_that_answers_in_another_form_than_its_outputs_is_not_loaded(tmp_path: Path) -> None:
    def flat(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {**outputs, "size": outputs["size"].astype(np.float64)}

    path = tmp_path / "heads.pt"
    sha256 = state_dict.save_weights(Heads().state_dict(), path)
    state_dict.save_record(Record(model="heads", sha256=sha256), path)
    with serving(tmp_path, {"heads": replace(HEADS, postprocess=flat)}, recipes=no_recipes) as client:
        (reason,) = client.get("/health/ready").json()["reasons"].values()
    assert "the output size is float64 [] for a sample instead of float32 []" in reason


def test_a_network_that_takes_other_arguments_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "heads.pt"
    sha256 = state_dict.save_weights(Bag().state_dict(), path)
    state_dict.save_record(Record(model="heads", sha256=sha256), path)
    with serving(tmp_path, {"heads": replace(HEADS, network=Bag)}, recipes=no_recipes) as client:
        (reason,) = client.get("/health/ready").json()["reasons"].values()
    assert "unexpected keyword argument 'samples'" in reason
