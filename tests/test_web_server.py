"""The service in a subprocess, over a socket."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from models.catalog import specs
from models.mnist import drawn_seven
from tests.fakes import running_server, shipped_specs
from tests.serving import png
from tests.sockets import Connection

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_server({"TORCHLOOP_MAX_BODY_BYTES": "100000"}) as url:
        yield url


def test_the_started_service_is_ready_and_answers_for_every_shipped_model(url: str) -> None:
    assert httpx.get(f"{url}/health/ready").json()["status"] == "ready"
    models = httpx.get(f"{url}/models", timeout=30).json()["models"]
    for model in (model for model in models if model["name"] in shipped_specs()):
        answer = httpx.post(f"{url}/predict/{model['name']}", json=model["example"])
        assert answer.status_code == 200
        assert len(answer.json()["predictions"]) == len(model["example"]["inputs"])


def test_hyperparameters_come_from_the_recipes(url: str) -> None:
    models = {model["name"]: model for model in httpx.get(f"{url}/models", timeout=30).json()["models"]}
    assert models.keys() == specs().keys()
    epochs = models["mnist"]["hyperparameters"]["properties"]["epochs"]
    assert epochs["minimum"] == 1
    assert epochs["description"]
    assert models["mnist"]["metric"] == "accuracy"


def test_concurrent_callers_each_get_their_own_answer(url: str) -> None:
    def ask(x: int) -> float:
        inputs = {"inputs": [[x / 50]]}
        return float(httpx.post(f"{url}/predict/regressor", json=inputs).json()["predictions"][0]["value"])

    alone = [ask(x) for x in range(-50, 50)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, range(-50, 50)))
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_body_without_a_length_is_cut_off_at_the_limit(url: str) -> None:
    endless = (b"x" * 1000 for _ in range(200))
    try:
        response = httpx.post(f"{url}/predict/mnist", content=endless)
    except (httpx.WriteError, httpx.ReadError):
        pytest.fail("the answer was lost")
    assert response.status_code == 413
    assert httpx.post(f"{url}/predict/mnist", content=png(drawn_seven())).json()["predictions"][0]["label"] == 7


def test_an_idle_connection_is_closed_after_the_configured_time() -> None:
    with running_server({"TORCHLOOP_KEEP_ALIVE_S": "1"}) as url:
        host, port = url.removeprefix("http://").split(":")
        with Connection((host, int(port))) as caller:
            caller.send(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert caller.answer()[0] == 200
            assert caller.read.read() == b""


def test_two_web_processes_share_the_port() -> None:
    with (
        running_server({"TORCHLOOP_WEB_PROCESSES": "2"}) as url,
        httpx.Client(transport=httpx.HTTPTransport(retries=20), timeout=30) as client,
    ):
        answers = [client.post(f"{url}/predict/mnist", content=png(drawn_seven())) for _ in range(10)]
        assert {answer.json()["predictions"][0]["label"] for answer in answers} == {7}
