"""POST /explain, and the attributions behind it."""

import select
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import httpx
import httpx2
import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from torch import Tensor, nn

from models.artifacts import packed, unpacked
from models.attribution import NoGradient, attribute
from models.catalog import PRETRAINED, specs
from models.checkpoints import state_dict
from models.messages import Explain, Order
from models.mnist import drawn_seven
from models.outputs import saliency
from models.spec import Array, Method, ModelSpec
from service.api.explain import MAX_SAMPLES
from service.app import create_app
from service.inference.explainer import WAITING
from service.settings import Settings
from tests.fakes import LINE, ROOT, InProcess, running_server, save_line, shipped_specs
from tests.problems import is_problem
from tests.serving import no_recipes, npy, png, serving
from tests.sockets import Connection, listening
from tests.templates import migrated
from tests.waiting import until

SEVEN = png(drawn_seven())


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving() as client:
        yield client


def shipped(name: str) -> tuple[ModelSpec, nn.Module]:
    return specs()[name], state_dict.load(name, specs()[name], PRETRAINED / f"{name}.pt")[0]


def by_hand(network: nn.Module, x: Array) -> Array:
    """The derivative of a ReLU perceptron's outputs: W2 diag(W1 x + b1 > 0) W1, (outputs, features)."""
    weight, bias, outer, _ = (parameter.detach().numpy() for parameter in network.parameters())
    derivative: Array = outer @ (weight * ((weight @ x + bias) > 0)[:, None])
    return derivative


def test_the_regressors_gradient_is_its_derivative(client: TestClient) -> None:
    _, network = shipped("regressor")
    points = np.array([[-0.9], [-0.33], [0.21], [0.77]], np.float32)
    answer = client.post("/explain/regressor", json={"inputs": points.tolist()}).json()
    assert (answer["model"], answer["version"]) == ("regressor", 1)
    values = client.post("/predict/regressor", json={"inputs": points.tolist()}).json()["predictions"]
    for entry, value, x in zip(answer["explanations"], values, points, strict=True):
        assert entry.keys() == {"value", "gradient"}
        assert entry["value"] == pytest.approx(value["value"], abs=1e-5)
        assert entry["gradient"] == pytest.approx(by_hand(network, x)[0].tolist(), abs=1e-5)
        assert entry["gradient"][0] == pytest.approx(2 * x[0], abs=0.5)  # it was fitted to the square


def test_the_classifiers_gradient_is_that_of_its_labels_logit(client: TestClient) -> None:
    _, network = shipped("classifier")
    points = np.array([[2.0, 1.5], [-1.0, -2.5]], np.float32)
    entries = client.post("/explain/classifier", json={"inputs": points.tolist()}).json()["explanations"]
    assert [entry["label"] for entry in entries] == [0, 1]
    for entry, x in zip(entries, points, strict=True):
        assert entry.keys() == {"label", "gradient"}
        assert entry["gradient"] == pytest.approx(by_hand(network, x)[entry["label"]].tolist(), abs=1e-5)


@pytest.mark.many
@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
def test_the_saliency_of_a_picture_is_28_by_28_in_0_to_1(client: TestClient, method: str) -> None:
    response = client.post(f"/explain/mnist?method={method}", content=SEVEN, headers={"content-type": "image/png"})
    (entry,) = response.json()["explanations"]
    picture = np.array(entry["saliency"])
    assert (entry["label"], picture.shape, picture.min() >= 0, picture.max()) == (7, (28, 28), True, 1)
    assert response.headers["x-model-version"] == "1"
    if method == "integrated_gradients":  # black pixels are the baseline's own: they add nothing
        assert not picture[drawn_seven() == 0].any()


@pytest.mark.parametrize("name", shipped_specs())
def test_integrated_gradients_add_up_to_the_change_of_the_answer(name: str) -> None:
    spec, network = shipped(name)
    samples = spec.preprocess(spec.example)
    outputs, shares = map(np.asarray, attribute(spec, network, samples, "integrated_gradients"))
    with torch.no_grad():
        baseline = network(torch.zeros(samples.shape)).numpy()
    labels = outputs.argmax(axis=1)
    change = np.take_along_axis(outputs - baseline, labels[:, None], axis=1)[:, 0]
    assert shares.shape == spec.example.shape
    np.testing.assert_allclose(shares.reshape(len(shares), -1).sum(axis=1), change, rtol=0.02, atol=0.02)


def test_an_integrated_gradient_is_called_an_attribution(client: TestClient) -> None:
    answer = client.post("/explain/regressor?method=integrated_gradients", json={"inputs": [[0.5]]}).json()
    assert answer["explanations"][0].keys() == {"value", "attribution"}


def test_every_body_kind_is_taken_and_a_bad_picture_fails_alone(client: TestClient) -> None:
    pixels = drawn_seven()[None]
    wanted = client.post("/explain/mnist", content=SEVEN).json()["explanations"]
    assert client.post("/explain/mnist", json={"inputs": pixels.tolist()}).json()["explanations"] == wanted
    headers = {"content-type": "application/x-npy"}
    assert client.post("/explain/mnist", content=npy(pixels), headers=headers).json()["explanations"] == wanted
    files: Any = [("a", SEVEN), ("b", SEVEN[:50]), ("c", SEVEN)]
    first, second, third = client.post("/explain/mnist", files=files).json()["explanations"]
    assert first["label"] == third["label"] == 7
    assert second["error"]["title"] == "Damaged picture"


@pytest.mark.parametrize(
    ("path", "inputs", "status", "words"),
    [
        ("regressor?method=magic", [[1]], 422, "method.*gradient"), ("nope", [[1]], 404, "known are classifier"),
        ("regressor?version=9", [[1]], 404, "no version 9"), ("regressor?version=x", [[1]], 422, "version"),
        ("regressor?version=99999999999", [[1]], 404, "no version"), ("regressor", [["x"]], 422, "Wrong sample"),
        ("regressor", [[0]] * (MAX_SAMPLES + 1), 413, f"at most {MAX_SAMPLES}"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_a_clear_error(
    client: TestClient,
    path: str,
    inputs: Any,
    status: int,
    words: str,
) -> None:
    assert is_problem(client.post(f"/explain/{path}", json={"inputs": inputs}), status, words)


def test_a_version_that_is_not_live_and_answers_that_are_not_finite(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}) as client:
        answer = client.post("/explain/line?version=1", json={"inputs": [[1], [3e38]]}).json()
        assert answer["explanations"][0] == {"value": 3, "gradient": [2]}
        assert answer["explanations"][1]["error"]["title"] == "No finite answer"
        assert is_problem(client.post("/explain/line", json={"inputs": [[3e38]]}), 422, "not a finite")
        counted = client.get("/metrics").text
        assert 'torchloop_explanations_total{model="line",status="200"} 1.0' in counted
        assert 'torchloop_explanations_total{model="line",status="422"} 1.0' in counted
        schema = client.get("/openapi.json").json()["paths"]["/explain/line"]["post"]
        assert schema["parameters"][0]["schema"]["enum"] == ["gradient", "integrated_gradients"]
    with serving(tmp_path / "empty", {"line": LINE}) as client:
        assert is_problem(client.post("/explain/line", json={"inputs": [[1]]}), 503, "no live version")


class Steps(nn.Module):
    """Has no gradient."""

    def forward(self, samples: Tensor) -> Tensor:
        return samples.detach().long().float()


def test_a_network_without_a_gradient_says_so() -> None:
    with pytest.raises(NoGradient, match="cannot be differentiated"):
        attribute(LINE, Steps(), np.ones((1, 1), np.float32), "gradient")


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
def test_saliency_of_nothing_is_nothing(method: Method) -> None:
    np.testing.assert_array_equal(saliency(np.zeros((2, 3, 3), np.float32), method)["saliency"], np.zeros((2, 3, 3)))
    np.testing.assert_array_equal(unpacked(packed(np.arange(3))), np.arange(3))


class Silent(InProcess):
    """A child that died."""

    def messages(self, timeout_s: float) -> Any:  # noqa: ARG002
        return []


class Slow(InProcess):
    """A child that answers when it may go on."""

    go_on = threading.Event()

    def messages(self, timeout_s: float) -> Any:
        assert self.go_on.wait(60)
        return super().messages(timeout_s)


def test_a_child_that_dies_is_an_error(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}, child=Silent, backend="eager") as client:
        assert is_problem(client.post("/explain/line", json={"inputs": [[1]]}), 500, "starts it again")


@pytest.mark.slow
def test_one_more_than_may_wait_is_refused_and_the_others_are_answered(tmp_path: Path) -> None:
    save_line(tmp_path)
    Slow.go_on.clear()
    with (
        serving(tmp_path, {"line": LINE}, child=Slow, backend="eager") as client,
        ThreadPoolExecutor(WAITING + 1) as pool,
    ):

        def ask() -> httpx2.Response:
            return client.post("/explain/line", json={"inputs": [[1]]})

        asked = as_completed([pool.submit(ask) for _ in range(WAITING + 1)], timeout=60)
        assert is_problem(next(asked).result(), 429)  # the only one that can be over
        Slow.go_on.set()
        assert [future.result().status_code for future in asked] == [200] * WAITING


class Noted(Slow):
    """As Slow; notes the samples of each order that reaches it."""

    reached: ClassVar[list[Any]] = []

    def send(self, order: Order[Any]) -> None:
        if isinstance(order, Explain):
            self.reached.append(np.asarray(order.samples).tolist())
        super().send(order)


@pytest.mark.slow
def test_explanations_whose_clients_left_while_they_waited_are_not_computed(tmp_path: Path) -> None:
    save_line(tmp_path)
    Slow.go_on.clear()
    Noted.reached.clear()
    settings = Settings(store=migrated(tmp_path / "store"), backend="eager", request_timeout_s=60)
    app = create_app(settings, {"line": LINE}, tmp_path, no_recipes, partial(Noted, {"line": LINE}))
    with listening(app) as (where, _), ExitStack() as stack:

        def ask(value: int) -> Connection:
            connection = stack.enter_context(Connection(where))
            body = b'{"inputs": [[%d]]}' % value
            head = b"POST /explain/line HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            connection.send(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            return connection

        def admitted(value: int) -> list[Connection]:
            """The connection, unless it is refused since too many wait."""
            connection = ask(value)
            return [] if select.select([connection.read], [], [], 0.2)[0] else [connection]

        first = ask(1)
        until(lambda: Noted.reached)
        leaving = [ask(2) for _ in range(WAITING - 2)]
        while more := admitted(2):
            leaving += more
        for connection in leaving:
            connection.close()
        staying: list[Connection] = []
        while len(staying) < WAITING - 1:  # as many as had left have room
            staying += admitted(3)
        Slow.go_on.set()
        assert [connection.answer()[0] for connection in (first, *staying)] == [200] * WAITING
    assert Noted.reached == [[[1.0]], *([[[3.0]]] * (WAITING - 1))]


def test_a_late_explanation_is_a_504(tmp_path: Path) -> None:
    save_line(tmp_path)
    Slow.go_on.set()
    with serving(tmp_path, {"line": LINE}, child=Slow, backend="eager", request_timeout_s=1e-9) as client:
        assert (
            client.post("/explain/line", json={"inputs": [[1]]}).status_code == 200
        )  # has longer: it starts the child
        Slow.go_on.clear()
        late = client.post("/explain/line", json={"inputs": [[1]]})
        Slow.go_on.set()
    assert is_problem(late, 504, "no explanation within")


@pytest.mark.slow
def test_the_service_explains_in_a_separate_process() -> None:
    with running_server({}) as url:
        content = (ROOT / "models" / "pretrained" / "seven.png").read_bytes()
        answer = httpx.post(f"{url}/explain/mnist", content=content, timeout=100).json()
    assert answer["explanations"][0]["label"] == 7
