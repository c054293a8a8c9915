"""The running application leads its trials: it promotes good candidates and rolls bad ones back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.delivery.canary import Sticky, bound_of
from service.delivery.trials import Counts, Trials
from service.store.database import Store
from tests.fakes import LINE, save_line
from tests.line_versions import upload
from tests.serving import no_recipes, serving
from tests.trials import count, err
from tests.waiting import until

PATH = "/models/line/trial"
ENOUGH = Counts(requests=100, samples=100)
SHARE = 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("led")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    save_line(folder / "shipped")
    with serving(folder / "shipped", {"line": LINE}, no_recipes, store=folder / "store", data=folder) as client:
        yield client


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    store = Store(folder / "store")
    yield store
    store.close()


def begin(client: TestClient, version: int) -> str:
    stages = [{"share": SHARE, "for": "PT0.1S", "samples": 50}]
    response = client.post(PATH, json={"version": version, "stages": stages, "key_header": "X-User"})
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def ended(client: TestClient) -> Any:
    """Wait for the end of the trial, and return it."""
    until(lambda: client.get(PATH).json()["finished_at"] is not None)
    return client.get(PATH).json()


def live(client: TestClient, user: str = "") -> Any:
    answer = client.post("/predict/line", json={"inputs": [[10]]}, headers={"X-User": user}).json()
    return answer["version"], answer["predictions"]


def chosen(trial: str) -> str:
    """Return a user whom the trial gives to its candidate."""
    sticky, bound = Sticky(trial, "X-User"), bound_of(SHARE)
    users = (f"user-{number}" for number in range(1000))
    return next(user for user in users if sticky.place({b"x-user": user.encode()}, "") < bound)


def returns(client: TestClient, trial: str, version: int) -> None:
    """Wait until the version answers whom the trial gave to its candidate: the process has followed the end."""
    user = chosen(trial)
    until(lambda: live(client, user)[0] == version)


@pytest.mark.slow
def test_a_good_candidate_goes_live_and_a_bad_one_does_not(client: TestClient, store: Store) -> None:
    good, bad, broken = upload(client, 3), upload(client, 4), upload(client, 5)
    trial = begin(client, good)
    count(Trials(store).get(trial), store, "candidate", ENOUGH)
    assert ended(client)["state"] == "promoted"
    until(lambda: live(client) == (good, [{"value": 31}]))

    second = Trials(store).get(begin(client, bad))
    err(second, store, "candidate", range(5))  # before the counts: with these alone the leader would promote it
    count(second, store, "candidate", ENOUGH)
    assert ended(client)["state"] == "rolled_back"
    returns(client, second.id, good)
    assert ended(client)["reason"].startswith("errors: keys with an error of one version only: 5 of the candidate")

    sha256 = client.get(f"/models/line/versions/{broken}").json()["sha256"]
    store.storage.checkpoint("line", sha256).unlink()
    third = begin(client, broken)
    count(Trials(store).get(third), store, "candidate", ENOUGH)
    assert ended(client)["state"] == "rolled_back"
    returns(client, third, good)
    assert ended(client)["reason"].startswith("load: ")
    history = client.get("/models/line/promotions").json()["promotions"]
    assert [one["version"] for one in history if one["action"] != "trial"] == [1, good]
