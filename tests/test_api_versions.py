"""Versions, promotion, rollback and upload over HTTP, around the fake model."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from sqlalchemy.exc import IntegrityError
from starlette.testclient import TestClient

from service.delivery.registry import Registry
from service.settings import Key
from service.store.database import Store
from service.telemetry.ids import version_of
from service.upkeep.pruner import Pruner
from service.upkeep.rules import Rules
from tests.fakes import LINE, Line, save_line
from tests.line_versions import promote, state, upload
from tests.serving import no_recipes, serving
from tests.templates import migrated


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """Version 1, 2x + 1, is live."""
    save_line(tmp_path / "shipped")
    with serving(tmp_path / "shipped", {"line": LINE}, no_recipes, store=tmp_path / "store", data=tmp_path) as client:
        yield client


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Version 1 is live, for tests whose requests are all refused."""
    folder = tmp_path_factory.mktemp("shipped")
    save_line(folder)
    with serving(folder, {"line": LINE}, no_recipes, data=folder) as client:
        yield client


def answer(client: TestClient, **params: Any) -> Any:
    answer = client.post("/predict/line", json={"inputs": [[10]]}, params=params).json()
    assert version_of(answer.pop("id")) == answer["version"]
    return answer


def test_the_shipped_checkpoint_is_version_one_promoted_by_the_start(client: TestClient) -> None:
    (version,) = client.get("/models/line/versions").json()["versions"]
    assert (version["version"], version["live"], version["job"]) == (1, True, None)
    assert version["created_at"].endswith("Z")
    assert len(version["sha256"]) == 64
    (promotion,) = client.get("/models/line/promotions").json()["promotions"]
    assert (promotion["version"], promotion["by"], promotion["action"]) == (1, "start", "promote")


def test_an_uploaded_state_dict_is_registered_and_not_promoted(client: TestClient) -> None:
    assert upload(client, 5) == 2
    assert answer(client) == {"model": "line", "version": 1, "predictions": [{"value": 21}]}
    assert answer(client, version=2) == {"model": "line", "version": 2, "predictions": [{"value": 51}]}
    assert client.get("/models/line/versions/2").json()["live"] is False


def test_promote_and_roll_back_change_what_answers(client: TestClient) -> None:
    upload(client, 5)
    upload(client, 7)
    assert promote(client, 2).json() == {"model": "line", "live": 2, "previous": 1, "waiting_for": []}
    assert answer(client)["predictions"] == [{"value": 51}]
    assert promote(client, 3).json() == {"model": "line", "live": 3, "previous": 2, "waiting_for": []}
    assert answer(client)["version"] == 3
    rollback = "/models/line/rollback"
    assert client.post(rollback).json() == {"model": "line", "live": 2, "previous": 3, "waiting_for": []}
    assert client.post(rollback).json() == {"model": "line", "live": 1, "previous": 2, "waiting_for": []}
    assert answer(client)["predictions"] == [{"value": 21}]
    refused = client.post(rollback)
    assert (refused.status_code, refused.json()["title"]) == (409, "Conflict")
    model = client.get("/models/line").json()
    assert (model["live"], model["loaded"]) == (1, 1)


def test_a_pruned_version_is_said_so_and_a_process_that_has_loaded_it_goes_on(
    client: TestClient, tmp_path: Path
) -> None:
    for slope in (5, 7, 9):
        upload(client, slope)
    promote(client, 2)
    client.post("/models/line/rollback")
    assert answer(client, version=2)["predictions"] == [{"value": 51}]
    store = Store(tmp_path / "store")
    Pruner(store, {"line": LINE}, Rules(keep_versions=1), time.time()).prune()
    store.close()
    assert [one["version"] for one in client.get("/models/line/versions").json()["versions"]] == [1, 4]
    for refused in (
        client.get("/models/line/versions/3"),
        client.get("/models/line/versions/3/checkpoint"),
        client.post("/predict/line", json={"inputs": [[10.0]]}, params={"version": 3}),
        promote(client, 3),
    ):
        assert refused.status_code == 404
        assert "version 3 of line was pruned on 20" in refused.json()["detail"]
        assert refused.json()["detail"].endswith("GET /models/line/versions lists those that are left")
    assert answer(client, version=2)["predictions"] == [{"value": 51}]
    assert promote(client, 2).status_code == 404
    assert [row["version"] for row in client.get("/models/line/promotions").json()["promotions"]] == [1, 2, 1]
    assert upload(client, 3) == 5


def test_the_history_says_what_was_live_at_a_time(client: TestClient) -> None:
    upload(client, 5)
    promote(client, 2)
    history = client.get("/models/line/promotions").json()
    first, second = history["promotions"]
    assert history["live"] == 2
    at = client.get("/models/line/promotions", params={"at": first["at"]}).json()
    assert (at["live"], len(at["promotions"])) in {(1, 1), (None, 0)}  # times are told in whole milliseconds
    assert client.get("/models/line/promotions", params={"at": "2000-01-01T00:00:00Z"}).json()["live"] is None
    assert client.get("/models/line/promotions", params={"at": "2100-01-01T00:00:00"}).json()["live"] == 2
    assert client.get("/models/line/promotions", params={"at": "soon"}).status_code == 422
    assert second["by"] == "anyone"


def test_the_history_names_the_key(tmp_path: Path) -> None:
    save_line(tmp_path)
    keys = (Key(scope="admin", secret="a"),)  # noqa: S106
    with serving(tmp_path, {"line": LINE}, no_recipes, api_keys=keys) as client:
        headers = {"authorization": "Bearer a"}
        client.post("/models/line/versions", content=state(5), headers=headers)
        client.post("/models/line/promote", json={"version": 2}, headers=headers)
        assert client.get("/models/line/promotions", headers=headers).json()["promotions"][-1]["by"] == "admin"


def test_promoting_what_is_live_is_no_change(client: TestClient) -> None:
    assert promote(client, 1).json() == {"model": "line", "live": 1, "previous": 1, "waiting_for": []}
    assert len(client.get("/models/line/promotions").json()["promotions"]) == 1


@pytest.mark.parametrize("damage", ["corrupted", "deleted", "not finite"])
def test_a_broken_checkpoint_is_not_promoted_and_nothing_changes(
    client: TestClient,
    tmp_path: Path,
    damage: str,
) -> None:
    content = state(3e38, 3e38) if damage == "not finite" else state(5)
    client.post("/models/line/versions", content=content)
    sha256 = client.get("/models/line/versions/2").json()["sha256"]
    path = tmp_path / "store" / "checkpoints" / "line" / f"{sha256[:12]}.pt"
    if damage == "corrupted":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif damage == "deleted":
        path.unlink()
    refused = promote(client, 2)
    assert refused.status_code == 409
    assert "nothing was changed" in refused.json()["detail"]
    assert str(tmp_path) not in refused.text
    assert answer(client)["version"] == 1
    assert len(client.get("/models/line/promotions").json()["promotions"]) == 1
    assert client.post("/predict/line", json={"inputs": [[1]]}, params={"version": 2}).status_code == 409
    assert 'torchloop_load_failures_total{model="line"}' in client.get("/metrics").text


def test_a_live_version_whose_file_goes_missing_goes_on_answering(client: TestClient, tmp_path: Path) -> None:
    for path in (tmp_path / "store" / "checkpoints").rglob("*.pt"):
        path.unlink()
    assert answer(client)["predictions"] == [{"value": 21}]
    assert client.get("/models/line/versions/1/checkpoint").status_code == 404


def test_a_downloaded_checkpoint_can_be_uploaded_again(client: TestClient) -> None:
    response = client.get("/models/line/versions/1/checkpoint")
    assert response.headers["content-disposition"] == 'attachment; filename="line-1.pt"'
    assert torch.load(io.BytesIO(response.content), weights_only=True)["slope"].item() == 2
    assert client.post("/models/line/versions", content=response.content).json()["version"] == 2


def test_safetensors_are_taken_too(client: TestClient) -> None:
    content = safetensors.torch.save(Line(slope=4).state_dict())
    assert client.post("/models/line/versions", content=content).status_code == 201
    assert answer(client, version=2)["predictions"] == [{"value": 41}]


def test_constructor_arguments_come_with_the_upload(client: TestClient) -> None:
    response = client.post("/models/line/versions", content=state(5), params={"arguments": '{"slope": 9}'})
    assert response.json()["arguments"] == {"slope": 9}
    for arguments in ('{"depth": 3}', "[]", "{", '{"slope": "x"}'):
        refused = client.post("/models/line/versions", content=state(5), params={"arguments": arguments})
        assert refused.status_code == 422, arguments


def pickled_network() -> bytes:
    file = io.BytesIO()
    torch.save(Line(), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a state_dict file"),
        (b"junk", "not a state_dict file"),
        (state(5)[:-30], "not a state_dict file"),
        (pickled_network(), "not a state_dict file"),
        (safetensors.torch.save({"slope": torch.ones(1)})[:-1], "damaged safetensors"),
        (
            safetensors.torch.save({"slope": torch.ones(2), "x": torch.ones(1)}),
            r"missing offset; unexpected x; slope has shape",
        ),
        (safetensors.torch.save({"slope": torch.tensor([float("nan")]), "offset": torch.ones(1)}), "not finite: slope"),
    ],
)
def test_what_is_no_state_dict_of_this_model_is_refused(unchanged: TestClient, content: bytes, words: str) -> None:
    response = unchanged.post("/models/line/versions", content=content)
    assert response.status_code == 422
    for part in words.split("; "):
        assert part in response.json()["detail"]
    assert len(unchanged.get("/models/line/versions").json()["versions"]) == 1


@pytest.mark.parametrize("in_the_way", ["store", "store/checkpoints/line"])
def test_an_upload_to_a_store_that_cannot_be_written_is_a_503(tmp_path: Path, in_the_way: str) -> None:
    save_line(tmp_path)
    options: dict[str, Any] = {"store": tmp_path / "store", "database_url": f"sqlite:///{tmp_path / 'torchloop.db'}"}
    with serving(tmp_path, {"line": LINE}, no_recipes, **options) as client:
        folder = tmp_path / in_the_way
        folder.rename(tmp_path / "moved")
        folder.write_text("a file where a folder should be")
        refused = client.post("/models/line/versions", content=state(5))
        assert (refused.status_code, refused.json()["title"]) == (503, "Store unavailable")
        assert "the store folder cannot be written" in refused.json()["detail"]
        assert str(tmp_path) not in refused.text
        folder.unlink()
        (tmp_path / "moved").rename(folder)
        assert upload(client, 5) == 2
        assert not [path for path in tmp_path.rglob(".*") if "probe" not in path.name]  # the store looks once more


@pytest.mark.parametrize("form", ['"%d"', "%d"])
def test_a_repeated_rollback_that_names_the_live_version_changes_nothing(client: TestClient, form: str) -> None:
    for slope in (3, 4):
        promote(client, upload(client, slope))
    headers = {"If-Match": form % 3}
    done = client.post("/models/line/rollback", headers=headers)
    assert (done.status_code, done.json()) == (200, {"model": "line", "live": 2, "previous": 3, "waiting_for": []})
    again = client.post("/models/line/rollback", headers=headers)
    assert (again.status_code, again.json()["title"]) == (412, "Precondition failed")
    assert again.json()["detail"] == "version 2 of line is live, not 3: nothing was changed"
    late = client.post("/models/line/promote", json={"version": 3}, headers=headers)
    assert late.status_code == 412
    assert len(client.get("/models/line/promotions").json()["promotions"]) == 4
    assert client.post("/models/line/promote", json={"version": 3}, headers={"If-Match": form % 2}).status_code == 200
    assert client.post("/models/line/rollback", headers={"If-Match": "*"}).status_code == 200
    for odd in ("x", '"', "3, 4", "-1", "9" * 10, 'W/"3"'):
        assert client.post("/models/line/rollback", headers={"If-Match": odd}).status_code == 422, odd


def rollback(client: TestClient, key: str, model: str = "line", **headers: str) -> Any:
    return client.post(f"/models/{model}/rollback", headers={"Idempotency-Key": key, **headers})


def test_a_repeated_rollback_with_its_idempotency_key_returns_the_first_answer(client: TestClient) -> None:
    for slope in (3, 4):
        promote(client, upload(client, slope))
    first = rollback(client, "a")
    assert (first.status_code, first.json()) == (200, {"model": "line", "live": 2, "previous": 3, "waiting_for": []})
    for headers in ({}, {"If-Match": "3"}, {"If-Match": "*"}):
        again = rollback(client, "a", **headers)
        assert (again.status_code, again.json()) == (200, first.json())
    assert answer(client)["version"] == 2
    promote(client, 3)
    assert rollback(client, "a").json() == first.json()  # late: what has happened since stays
    assert answer(client)["version"] == 3
    assert rollback(client, "b").json() == {"model": "line", "live": 2, "previous": 3, "waiting_for": []}
    assert rollback(client, "c").json() == {"model": "line", "live": 1, "previous": 2, "waiting_for": []}
    assert len(client.get("/models/line/promotions").json()["promotions"]) == 7
    assert rollback(client, "d").status_code == 409
    assert rollback(client, "d").status_code == 409  # a refusal takes no key
    for odd in ("", "x" * 201):
        assert rollback(client, odd).status_code == 422


def test_the_key_of_a_rollback_is_of_one_model(tmp_path: Path) -> None:
    for name in ("line", "other"):
        save_line(tmp_path, name)
    with serving(tmp_path, {"line": LINE, "other": LINE}, no_recipes) as client:
        promote(client, upload(client, 3))
        assert rollback(client, "a").status_code == 200
        refused = rollback(client, "a", "other")
        assert (refused.status_code, "a rollback of line" in refused.json()["detail"]) == (422, True)


def test_a_rollback_whose_key_has_come_to_another_process_meanwhile_is_not_made_again(tmp_path: Path) -> None:
    """Two web processes get the same request: the second looks it up again in its transaction."""
    store = Store(migrated(tmp_path))
    registry = Registry(store)
    with store.write() as connection:
        for number in (1, 2, 3):
            registry.promote(connection, "line", number, by="x", reason="", now=number)
        assert registry.rolled_back(connection, "line", "a") is None
        assert registry.rollback(connection, "line", by="x", reason="", now=4, key="a") == (2, 3)
    with store.write() as connection:
        assert registry.rolled_back(connection, "line", "a") == (2, 3)
        assert registry.rolled_back(connection, "line", None) is None
    with pytest.raises(IntegrityError), store.write() as connection:
        registry.rollback(connection, "line", by="x", reason="", now=5, key="a")
    assert registry.live() == {"line": 2}
    store.close()


def test_versions_are_listed_in_pages(client: TestClient) -> None:
    for slope in (3, 4, 5, 6):
        upload(client, slope)

    def page(**params: int) -> tuple[list[int], int | None]:
        found = client.get("/models/line/versions", params=params).json()
        return [version["version"] for version in found["versions"]], found["before"]

    assert page() == ([1, 2, 3, 4, 5], None)
    assert page(limit=2) == ([4, 5], 4)
    assert page(limit=2, before=4) == ([2, 3], 2)
    assert page(limit=2, before=2) == ([1], None)
    assert page(limit=5) == ([1, 2, 3, 4, 5], None)
    assert page(before=3) == ([1, 2], None)
    for odd in ({"limit": 0}, {"limit": 1001}, {"before": 0}, {"before": 2**31}):
        assert client.get("/models/line/versions", params=odd).status_code == 422


def test_unknown_models_and_versions_are_404(unchanged: TestClient) -> None:
    for method, path in [
        ("GET", "/models/x/versions"),
        ("GET", "/models/line/versions/2"),
        ("GET", "/models/line/versions/99999999999999999999"),
        ("GET", "/models/line/versions/2/checkpoint"),
        ("POST", "/models/x/versions"),
        ("POST", "/models/x/rollback"),
        ("GET", "/models/x/promotions"),
    ]:
        assert unchanged.request(method, path).status_code == 404, path
    assert promote(unchanged, 9).status_code == 404
    assert unchanged.post("/models/x/promote", json={"version": 1}).status_code == 404


@pytest.mark.parametrize("body", [{}, {"version": 0}, {"version": "x"}, {"version": 1, "x": 1}, {"version": 2**40}, []])
def test_a_bad_promote_body_is_422(unchanged: TestClient, body: Any) -> None:
    assert unchanged.post("/models/line/promote", json=body).status_code == 422


def test_a_start_with_versions_in_the_store_keeps_them(tmp_path: Path) -> None:
    save_line(tmp_path / "shipped")
    options: dict[str, Any] = {"store": tmp_path / "store"}
    with serving(tmp_path / "shipped", {"line": LINE}, no_recipes, **options) as client:
        upload(client, 5)
        promote(client, 2)
    with serving(tmp_path / "shipped", {"line": LINE}, no_recipes, **options) as client:
        assert answer(client)["version"] == 2
        assert len(client.get("/models/line/versions").json()["versions"]) == 2
