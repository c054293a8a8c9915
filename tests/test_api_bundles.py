"""Versions travel between services as bundles, with their artifacts; a broken one changes nothing."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from models.checkpoints import artifact_files
from models.checkpoints.record import verify
from models.spec import Array, ModelSpec, Prediction
from service.client import BadArgument, Client
from service.execution.recipes import RecipeSchema
from service.register import register
from service.store.database import Store
from tests.fakes import LINE
from tests.problems import is_problem
from tests.serving import BASE_URL, no_recipes, over, serving
from tests.signatures import TEXT, VOCABULARY, save

LARGE = {**VOCABULARY, "labels": ["yes", "no", "-" * 5_000_000]}
SPECS: Mapping[str, ModelSpec] = {"text": TEXT, "line": LINE}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the text model with a large artifact, alone in its folder."""
    return save(tmp_path_factory.mktemp("checkpoint"), "text", artifacts=LARGE)


@contextmanager
def empty(folder: Path) -> Iterator[tuple[TestClient, Path]]:
    """A service without versions, and its store."""
    nothing, store = folder / "nothing", folder / "store"
    nothing.mkdir(parents=True)
    with serving(nothing, SPECS, recipes=no_recipes, store=store) as client:
        yield client, store


def bundled(path: Path, changes: Mapping[str, bytes | None] | None = None) -> bytes:
    """Return the bundle of a checkpoint; `changes` replaces or adds members, and None removes one."""
    members = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in {**members, **(changes or {})}.items():
            if content is not None:
                header = tarfile.TarInfo(name)
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))
    return file.getvalue()


def recorded(path: Path, **values: Any) -> bytes:
    """Return the record of a checkpoint with other values."""
    return json.dumps({**json.loads(path.with_suffix(".json").read_bytes()), **values}).encode()


def label(client: TestClient) -> str:
    (prediction,) = client.post("/predict/text", json={"inputs": ["good"]}).json()["predictions"]
    return str(prediction["label"])


def upload(client: TestClient, content: bytes, **params: str) -> Any:
    return client.post("/models/text/versions", content=content, params=params)


def test_a_version_moves_to_another_service_with_its_artifacts(checkpoint: Path, tmp_path: Path) -> None:
    with serving(checkpoint.parent, SPECS, recipes=no_recipes) as first, empty(tmp_path) as (second, store):
        answer = first.get("/models/text/versions/1/checkpoint?artifacts=true")
        assert answer.headers["content-type"] == "application/x-tar"
        assert answer.headers["content-disposition"] == 'attachment; filename="text-1.tar"'
        assert int(answer.headers["content-length"]) == len(answer.content)
        added = upload(second, answer.content)
        assert added.status_code == 201, added.text
        told = {"version": 1, "live": False, "command": "uploaded", "artifacts": ["labels", "weight", "words"]}
        assert told.items() <= added.json().items()
        assert {path.suffix for path in (store / "checkpoints" / "text").iterdir()} == {".pt", ".artifact"}
        assert second.post("/models/text/promote", json={"version": 1}).status_code == 200
        assert label(second) == label(first)
        assert second.get("/models/text/versions/1/checkpoint?artifacts=true").status_code == 200
        assert not [path for path in store.iterdir() if path.name.startswith(".")]


def test_the_plain_download_stays_and_a_bundle_is_known_by_its_etag(checkpoint: Path) -> None:
    with serving(checkpoint.parent, SPECS, recipes=no_recipes) as client:
        address = "/models/text/versions/1/checkpoint"
        plain = client.get(address)
        assert plain.content == checkpoint.read_bytes()
        assert plain.headers["etag"] == f'"{hashlib.sha256(plain.content).hexdigest()}"'
        etag = client.get(f"{address}?artifacts=true").headers["etag"]
        assert etag != plain.headers["etag"]
        known = client.get(f"{address}?artifacts=true", headers={"If-None-Match": etag})
        assert (known.status_code, known.content) == (304, b"")
        assert is_problem(client.get(f"{address}?artifacts=perhaps"), 422, "artifacts")


def test_a_bundle_whose_artifact_is_missing_in_the_store_is_not_sent(checkpoint: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with serving(checkpoint.parent, SPECS, recipes=no_recipes, store=store) as client:
        (path,) = (store / "checkpoints" / "text").glob("*.artifact")
        path.unlink()
        response = client.get("/models/text/versions/1/checkpoint?artifacts=true")
        assert is_problem(response, 404, f"the artifact file {path.name} of version 1 of text is missing in the store")
        assert client.get("/models/text/versions/1/checkpoint").status_code == 200


def test_an_unpacked_bundle_can_be_registered_on_the_machine(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.register.specs", lambda: SPECS)
    with serving(checkpoint.parent, SPECS, recipes=no_recipes) as client:
        content = client.get("/models/text/versions/1/checkpoint?artifacts=true").content
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(tmp_path, filter="data")
    store = Store(tmp_path / "store")
    version, record = register(store, "text", tmp_path / "text-1.pt")
    store.close()
    assert (version, record.artifacts) == (1, verify("text", checkpoint).artifacts)


def artifact_of(path: Path) -> str:
    (name,) = artifact_files.names(verify("text", path))
    return name


def pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{}] * 3), allow_pickle=True)
    return file.getvalue()


@pytest.mark.slow
def test_broken_bundles_are_refused_and_leave_nothing(checkpoint: Path, tmp_path: Path) -> None:
    file, content = artifact_of(checkpoint), pickled()
    sha256 = hashlib.sha256(content).hexdigest()
    forged = {"sha256 of file": sha256, "form": "npy"}
    kept = json.loads(checkpoint.with_suffix(".json").read_bytes())["artifacts"]
    cases: Sequence[tuple[Mapping[str, bytes | None], str]] = [
        ({file: b"[]"}, "the file of the artifact labels, is not the one that the record names"),
        ({file: None}, f"{file}, the file of an artifact, is missing"),
        ({"text.pt": b"x"}, "is not the file that its record was written for"),
        ({"..\\text.artifact": b"x"}, "is not the name of a file without a folder"),
        ({"text.json": recorded(checkpoint, model="line")}, "a checkpoint of line, not of text"),
        ({"text.json": recorded(checkpoint, config={"x": 2**70})}, "a whole number must fit 64 bits"),
        (
            {file: None, "text.json": recorded(checkpoint, artifacts={"words": 5})},
            "models/text.py does not answer its example with the artifacts in the upload",
        ),
        (
            {f"{sha256[:24]}.artifact": content, "text.json": recorded(checkpoint, artifacts={**kept, "more": forged})},
            "the artifacts in the record cannot be read",
        ),
        (
            {"text.json": recorded(checkpoint, artifacts={**kept, "more": {"npy base64": "gASVAA=="}})},
            "the artifacts in the record cannot be read",
        ),
        ({"text.json": recorded(checkpoint, arguments={"words": 6})}, "does not fit the network"),
    ]
    with empty(tmp_path) as (client, store):
        for changes, said in cases:
            assert is_problem(upload(client, bundled(checkpoint, changes)), 422, said)
        response = upload(client, bundled(checkpoint), arguments='{"words": 9}')
        assert is_problem(response, 422, "the record in the bundle has others: leave out \\?arguments")
        assert not client.get("/models/text/versions").json()["versions"]
        assert not list(store.glob("checkpoints/text/*"))
        assert not [path for path in store.iterdir() if path.name.startswith(".")]
        assert upload(client, bundled(checkpoint), arguments='{"words": 5}').status_code == 422
        assert upload(client, bundled(checkpoint)).status_code == 201


def test_arguments_in_a_bundle_must_be_within_the_bounds_of_the_recipe(checkpoint: Path, tmp_path: Path) -> None:
    words = {"properties": {"words": {"type": "integer", "maximum": 10, "default": 5}}}

    async def recipes() -> Mapping[str, RecipeSchema]:
        return {"text": RecipeSchema(hyperparameters=words, metric="accuracy", higher_is_better=True)}

    tmp_path.joinpath("nothing").mkdir()
    with serving(tmp_path / "nothing", SPECS, recipes=recipes) as client:
        content = bundled(checkpoint, {"text.json": recorded(checkpoint, arguments={"words": 10**9})})
        assert is_problem(upload(client, content), 422, "arguments: words: 1000000000 is greater than the maximum")


def test_a_model_without_artifacts_takes_bundles_too(tmp_path: Path) -> None:
    with empty(tmp_path) as (client, store):
        file = io.BytesIO()
        torch.save(LINE.network(slope=5).state_dict(), file)
        assert client.post("/models/line/versions", content=file.getvalue()).status_code == 201
        content = client.get("/models/line/versions/1/checkpoint?artifacts=true").content
        assert client.post("/models/line/versions", content=content).json()["version"] == 2
        assert len(list((store / "checkpoints" / "line").iterdir())) == 1


def needs(rows: Array, artifacts: Mapping[str, Any]) -> Sequence[Prediction]:
    return [{"value": float(row[0]) + artifacts["number"]} for row in rows]


def test_the_refusal_of_weights_without_artifacts_names_the_bundle(tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save(LINE.network().state_dict(), file)
    tmp_path.joinpath("nothing").mkdir()
    with serving(tmp_path / "nothing", {"line": replace(LINE, describe=needs)}, recipes=no_recipes) as client:
        response = client.post("/models/line/versions", content=file.getvalue())
        assert is_problem(response, 422, "line.py needs artifacts, .* raises KeyError: .*: upload a bundle")


def test_the_client_sends_artifacts_with_the_file_of_a_path(checkpoint: Path, tmp_path: Path) -> None:
    with empty(tmp_path) as (app, _), Client(BASE_URL, transport=over(app)) as client:
        assert client.register("text", checkpoint)["artifacts"] == ["labels", "weight", "words"]
        client.promote("text", 1)
        assert client.predict("text", ["good"])["predictions"][0]["label"] in {"yes", "no"}
        path = tmp_path / "text-1.tar"
        path.write_bytes(client.download("text", 1, artifacts=True))
        assert client.register("text", path)["version"] == 2
        assert client.download("text", 1) == client.download("text", 2) == checkpoint.read_bytes()


def test_the_client_names_an_artifact_that_is_missing_beside_the_file(checkpoint: Path, tmp_path: Path) -> None:
    for file in checkpoint.parent.iterdir():
        if file.suffix != ".artifact":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    said = rf"{artifact_of(checkpoint)}, the file of the artifact labels, is missing"
    with Client(BASE_URL) as client, pytest.raises(BadArgument, match=said):
        client.register("text", tmp_path / "text.pt")


def test_a_record_from_elsewhere_makes_the_client_send_no_other_file(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_bytes(checkpoint.read_bytes())
    for digest in ("../../../etc/passwd", "/etc/passwd", 5, None):
        artifacts = {"words": {"sha256 of file": digest, "form": "json"}}
        (tmp_path / "text.json").write_bytes(recorded(checkpoint, artifacts=artifacts))
        with Client(BASE_URL) as client, pytest.raises(BadArgument, match="no SHA-256 digest for the artifact words"):
            client.register("text", tmp_path / "text.pt")


@pytest.mark.many
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"artifacts": 5}', b'{"artifacts": {}}', b"[" * 99_999])
def test_another_json_file_beside_the_weights_changes_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "line.pt"
    torch.save(LINE.network(slope=5).state_dict(), path)
    path.with_suffix(".json").write_bytes(content)
    with empty(tmp_path) as (app, _), Client(BASE_URL, transport=over(app)) as client:
        assert client.register("line", path)["artifacts"] == []
