"""The files of captured pictures, and the form of truths, by the clients and their commands."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from models.mnist import drawn_seven
from service.client import AsyncClient, BadArgument, Client, NotFound
from service.client import __main__ as command
from service.client.clients import Client as Made
from tests.capturing import capturing
from tests.serving import BASE_URL, over, png
from tests.waiting import until

SEVEN = png(drawn_seven())


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with capturing(tmp_path_factory.mktemp("shipped"), originals=True) as app:
        yield app


@pytest.fixture(scope="module")
def identity(app: TestClient) -> str:
    answer = app.post("/predict/mnist", content=SEVEN, headers={"Content-Type": "image/png"}).json()
    until(lambda: app.get(f"/predictions/{answer['id']}").status_code == 200)
    return str(answer["id"])


@pytest.fixture
def client(app: TestClient) -> Client:
    return Client(BASE_URL, transport=over(app))


def test_a_picture_file_is_read_back_as_it_came_and_as_it_was_read(client: Client, identity: str) -> None:
    assert client.captured_original(identity) == SEVEN
    assert client.captured_original(identity, index=0, model="mnist") == SEVEN
    assert client.captured_picture(identity).startswith(b"\x89PNG")
    with pytest.raises(NotFound):
        client.captured_original(identity, index=1)
    with pytest.raises(BadArgument):
        client.captured_original("..")


def test_an_input_is_asked_for_by_its_name(client: Client, identity: str) -> None:
    with pytest.raises(NotFound, match="left"):
        client.captured_picture(identity, input_name="left")


def test_another_media_type_is_no_picture() -> None:
    page = httpx.MockTransport(lambda _: httpx.Response(200, html="<p>a proxy</p>"))
    with pytest.raises(Exception, match="is not"):
        Client(BASE_URL, transport=page).captured_original("i", model="mnist")


def test_the_form_of_truths_names_the_labels(client: Client) -> None:
    (part,) = client.truth_form("mnist")["outputs"]
    assert part == {"name": "", "kind": "label", "labels": list(range(10)), "shape": []}


def test_the_asynchronous_client_has_the_same_methods() -> None:
    paths: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        if request.url.path.endswith("feedback"):
            return httpx.Response(200, json={"model": "mnist", "outputs": []})
        if request.url.path.startswith("/predictions"):
            return httpx.Response(200, json={"model": "mnist"})
        return httpx.Response(200, content=SEVEN, headers={"Content-Type": "image/png"})

    async def run() -> list[Any]:
        async with AsyncClient(BASE_URL, transport=httpx.MockTransport(answer)) as client:
            files = [await client.captured_original("i", index=2), await client.captured_picture("i", model="mnist")]
            return [*files, await client.truth_form("mnist")]

    assert asyncio.run(run()) == [SEVEN, SEVEN, {"model": "mnist", "outputs": []}]
    assert paths == [
        "/predictions/i",
        "/models/mnist/captures/i/2/original",
        "/models/mnist/captures/i/0/picture.png",
        "/models/mnist/feedback",
    ]


@pytest.fixture
def run(app: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Words -> exit status, standard output, standard error."""
    monkeypatch.setattr(command, "Client", lambda url, **options: Made(url, transport=over(app), **options))

    def run(*words: str) -> tuple[int, str, str]:
        status = command.main(words, {"TORCHLOOP_URL": BASE_URL})
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_the_command_saves_a_picture_file(run: Any, identity: str, tmp_path: Path) -> None:
    file = tmp_path / "seven.png"
    assert run("original", identity, str(file)) == (0, f"{file}\n", "")
    assert file.read_bytes() == SEVEN
    status, out, _ = run("original", identity, str(file), "--as-read", "--model", "mnist", "--json")
    assert (status, json.loads(out)) == (0, {"path": str(file)})
    assert file.read_bytes().startswith(b"\x89PNG")
    status, _, err = run("original", identity, str(tmp_path / "none"), "--index", "3")
    assert (status, "Not found" in err, (tmp_path / "none").exists()) == (1, True, False)
    with pytest.raises(SystemExit):
        run("original", identity, str(file), "--input", "left")


def test_the_command_shows_the_form_of_truths(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("truths", "mnist")[1].splitlines()[1].split(maxsplit=4)[-1] == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert "a number" in run("truths", "line")[1]
    parts = [
        {"name": "mask", "kind": "array", "labels": None, "shape": [None, 2]},
        {"name": "word", "kind": "label", "labels": None, "shape": []},
    ]
    for outputs in (parts, []):
        told = httpx.MockTransport(
            lambda _, outputs=outputs: httpx.Response(200, json={"model": "m", "outputs": outputs})
        )
        monkeypatch.setattr(command, "Client", lambda url, told=told, **_: Made(url, transport=told))
        out = run("truths", "m")[1]
        words = ["numbers (any, 2)", "a text or a whole number"] if outputs else ["nothing that a truth could"]
        assert all(word in out for word in words)
