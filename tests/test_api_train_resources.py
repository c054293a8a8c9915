"""POST /train with resources, by the API, the client and the command line; output of jobs as the client shows it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.client import Client, Refused, tables
from service.client import __main__ as commands
from service.client.events import Feed
from service.client.show import bar
from tests.fakes import LINE, save_line
from tests.serving import over, serving

REFUSED: list[tuple[Any, str]] = [
    ({"cpus": 5}, "cpus is 5, and a job may ask for at most 4 here: ask for less, or have TORCHLOOP_MAX_RESOURCES"),
    ({"cpus": 1, "gpus": 1}, "gpus is 1, and a job may ask for at most 0.5 here"),
    ({"gpus": 2}, "less than or equal to 1"),
    ({"gpus": 1e-8}, "resources.gpus: the smallest part of a GPU is 0.01; 0 is none"),
    ({"cpus": 0}, "greater than or equal to 0.1"),
    ({"cpus": "2"}, "valid number"),
    ({"cpus": True}, "valid number"),
    ({"nodes": 3}, "nodes is 3, and a job may ask for at most 2 here"),
    ({"nodes": 0}, "greater than or equal to 1"),
    ({"nodes": 1.5}, "valid integer"),
    ({"memory": 2}, "memory is not a field; the fields are cpus, gpus, nodes"),
    ([], "resources"),
]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("app")
    save_line(folder / "shipped")
    with serving(folder / "shipped", {"line": LINE}, store=folder, max_resources="cpus=4,gpus=0.5,nodes=2") as client:
        yield client


def train(app: TestClient, resources: Any) -> Any:
    return app.post("/train", json={"model": "line", "resources": resources})


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (None, None),
        ({}, None),
        ({"gpus": 0.5}, {"gpus": 0.5}),
        ({"cpus": 4, "gpus": None}, {"cpus": 4}),
        ({"nodes": 2}, {"nodes": 2}),
        ({"gpus": 0}, {"gpus": 0}),
    ],
)
def test_a_job_asks_for_resources_within_the_bounds(app: TestClient, asked: Any, kept: Any) -> None:
    answer = train(app, asked)
    assert (answer.status_code, answer.json()["resources"]) == (202, kept)
    assert app.get(f"/jobs/{answer.json()['id']}").json()["resources"] == kept


@pytest.mark.parametrize(("asked", "words"), REFUSED)
def test_a_wish_that_cannot_be_granted_says_so(app: TestClient, asked: Any, words: str) -> None:
    answer = train(app, asked)
    assert answer.status_code == 422
    assert words in answer.text


def test_without_the_setting_a_job_asks_for_nothing(tmp_path: Path) -> None:
    save_line(tmp_path / "shipped")
    with serving(tmp_path / "shipped", {"line": LINE}) as client:
        assert train(client, {"gpus": 0, "nodes": 1}).status_code == 202
        answer = train(client, {"cpus": 0.5})
        assert answer.status_code == 422
        assert "cpus is 0.5, and a job may ask for at most 0 here" in answer.json()["detail"]


def test_the_client_asks_for_resources(app: TestClient) -> None:
    with Client("http://localhost", transport=over(app)) as client:
        assert client.submit("line", resources={"cpus": 2})["resources"] == {"cpus": 2}
        assert client.train("line", resources={"gpus": 0.25})["resources"] == {"gpus": 0.25}
        assert client.train("line")["resources"] is None
        with pytest.raises(Refused, match="at most 4 here"):
            client.submit("line", resources={"cpus": 8})


def test_the_command_asks_for_resources(
    app: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "Client", lambda *_, **__: Client("http://localhost", transport=over(app)))
    assert commands.main(["submit", "line", "--cpus", "2", "--gpus", "0.5", "--nodes", "2", "--json"]) == 0
    job = json.loads(capsys.readouterr().out)
    assert job["resources"] == {"cpus": 2, "gpus": 0.5, "nodes": 2}


def test_output_of_a_job_is_an_event_and_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    feed = Feed()
    lines = ["id: 7", "event: log", 'data: {"job": "j", "attempt": 1, "output": "a\\u001b[2Jb c\\nd"}']
    assert [feed.take(line) for line in lines] == [None] * 3
    event = feed.take("")
    assert event is not None
    assert (event.id, event.kind, event.final) == (7, "log", False)
    tables.event(event)
    with bar() as show:
        assert show is not None
        show(event)
    out, err = capsys.readouterr()
    assert out == "7  a\\x1b[2Jb c\n7  d\n"
    assert "a\\x1b[2Jb c" in err


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (None, None),
        ({"gpus": 0}, "any worker or node"),
        ({"cpus": 4, "gpus": 0.5}, "a worker or node with 4 CPUs and 0.5 GPU"),
        ({"cpus": 1, "nodes": 2}, "2 nodes with 1 CPU each"),
        ({"nodes": 2}, "2 nodes"),
    ],
)
def test_a_queued_job_says_what_it_waits_for(app: TestClient, asked: Any, said: str | None) -> None:
    job = train(app, asked).json()
    assert job["waits_for"] == app.get(f"/jobs/{job['id']}").json()["waits_for"] == said
    ended = app.post(f"/jobs/{job['id']}/cancel").json()
    assert (ended["state"], ended["waits_for"]) == ("cancelled", None)


def test_the_list_of_jobs_names_what_they_wait_for(app: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    job = train(app, {"cpus": 3}).json()
    tables.jobs([job])
    assert "waits for a worker or node with 3 CPUs" in capsys.readouterr().out
