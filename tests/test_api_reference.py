"""Rows are compared with the training data of the version that answers."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from models.checkpoints import state_dict
from models.checkpoints.record import Record
from models.reference import feature_ranges
from service.delivery.registry import Registry
from service.store.database import Store
from tests.fakes import LINE, Line, save_line
from tests.line_versions import promote
from tests.problems import is_problem
from tests.serving import no_recipes, npy, serving
from tests.templates import migrated

SPECS = {"line": replace(LINE, check=feature_ranges("x"))}
TITLE = "Unlike the training data"
ROUTES = ("/predict/line", "/preview/line")


def register(folder: Path, reference: Mapping[str, Any]) -> None:
    """The next version of `line`, fitted to data with that reference."""
    store = Store(migrated(folder))
    path = folder / "checkpoints" / "line" / f"{len(Registry(store).versions('line'))}.pt"
    sha256 = state_dict.save_weights(Line().state_dict(), path)
    record = Record(model="line", sha256=sha256, reference=reference)
    with store.write() as connection:
        Registry(store).add(connection, "line", path, record, job=None, now=1.0)
    store.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """Version 1 has no reference and is live; 2 was fitted to 0..4, 3 to 100..200, 4 has a damaged record."""
    save_line(tmp_path / "shipped")
    with serving(tmp_path / "shipped", SPECS, no_recipes, store=tmp_path / "store", data=tmp_path) as client:
        for reference in ([[0.0], [4.0]], [[100.0], [200.0]], "nothing"):
            register(tmp_path / "store", {"features": reference})
        yield client


def is_refused(client: TestClient, value: float, **params: int) -> bool:
    """Whether every route and form refuses the number; they agree."""
    array = npy([[float(value)]])
    statuses = {
        client.post("/predict/line", json={"inputs": [[value]]}, params=params).status_code,
        client.post(
            "/predict/line", content=array, headers={"content-type": "application/x-npy"}, params=params
        ).status_code,
    }
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1], "data": [value]}
    version = f"/versions/{params['version']}" if params else ""
    statuses.add(
        422 if client.post(f"/v2/models/line{version}/infer", json={"inputs": [tensor]}).status_code == 400 else 200
    )
    assert len(statuses) == 1
    return statuses == {422}


def test_the_live_version_decides(client: TestClient) -> None:
    assert not is_refused(client, 150)
    promote(client, 2)
    assert is_refused(client, 150)
    assert not is_refused(client, 7.9)
    assert is_refused(client, 8.1)
    promote(client, 3)
    assert not is_refused(client, 150)
    assert is_refused(client, -3)
    client.post("/models/line/rollback")
    assert is_refused(client, 150)


def test_a_version_asked_for_by_its_number_decides_itself(client: TestClient) -> None:
    promote(client, 2)
    assert not is_refused(client, 150, version=3)
    assert not is_refused(client, 150, version=1)
    assert is_refused(client, -3, version=3)
    assert not is_refused(client, -3, version=1)


def test_a_row_is_refused_in_its_place_and_in_words(client: TestClient) -> None:
    promote(client, 2)
    body = {"inputs": [[1], [150], [2]]}
    first, second, third = client.post("/predict/line", json=body).json()["predictions"]
    assert (first, third) == ({"value": 3}, {"value": 5})
    assert second == {"error": {"title": TITLE, "detail": "x is 150: the training data has 0 to 4"}}
    for route in (*ROUTES, "/explain/line"):
        assert is_problem(client.post(route, json={"inputs": [[150]]}), 422, TITLE)


def test_the_versions_show_their_references(client: TestClient) -> None:
    versions = client.get("/models/line/versions").json()["versions"]
    assert [version["reference"] for version in versions[:3]] == [
        {},
        {"features": [[0.0], [4.0]]},
        {"features": [[100.0], [200.0]]},
    ]


def test_a_version_whose_reference_does_not_fit_is_not_promoted(client: TestClient) -> None:
    refused = promote(client, 4)
    assert is_problem(refused, 409, "Conflict")
    assert "the reference in the record of 3.pt does not fit the model's check" in refused.json()["detail"]
    assert not is_refused(client, 150)
