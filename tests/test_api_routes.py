"""GET /models, health, metrics, documentation, keys."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jsonschema
import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from service.web.json_limit import MAX_JSON_BYTES
from tests.fakes import LINE, InProcess, save_line, shipped_specs
from tests.serving import BASE_URL, LINE_RECIPE, line_recipes, serving
from tests.templates import migrated


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("models")
    save_line(folder)
    with serving(folder, {"line": LINE}) as client:
        yield client


def test_a_model_says_what_it_takes_and_how_it_is_trained(line: TestClient) -> None:
    (model,) = line.get("/models").json()["models"]
    assert model == line.get("/models/line").json()
    assert (model["name"], model["live"], model["loaded"], model["fault"]) == ("line", 1, 1, None)
    assert model["media_types"] == ["application/json", "application/x-npy"]
    assert model["hyperparameters"] == LINE_RECIPE.hyperparameters
    assert (model["metric"], model["higher_is_better"]) == ("mse", False)
    jsonschema.validate(model["example"], model["body_schema"])
    assert line.post("/predict/line", json=model["example"]).json()["predictions"] == [{"value": 7}]


def test_an_unknown_model_is_404(line: TestClient) -> None:
    response = line.get("/models/nope")
    assert response.status_code == 404
    assert "known are line" in response.json()["detail"]


def test_a_broken_checkpoint_stops_no_other_model_and_ready_says_why(tmp_path: Path) -> None:
    save_line(tmp_path, "good")
    save_line(tmp_path, "broken").write_bytes(b"junk")
    save_line(tmp_path, "missing").unlink()
    with serving(tmp_path, dict.fromkeys(("good", "broken", "missing", "fresh"), LINE)) as client:
        assert client.post("/predict/good", json={"inputs": [[1]]}).status_code == 200
        for name in ("broken", "missing", "fresh"):
            assert client.post(f"/predict/{name}", json={"inputs": [[1]]}).status_code == 503
        ready = client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["reasons"].keys() == {"broken", "missing"}
        assert "sha256" in ready.json()["reasons"]["broken"]
        assert "missing.pt cannot be read" in ready.json()["reasons"]["missing"]
        assert str(tmp_path) not in ready.text
        assert ready.json()["without_live_version"] == ["fresh"]
        assert client.get("/health/live").status_code == 200
        assert client.get("/models/broken").json()["fault"] == ready.json()["reasons"]["broken"]
        assert 'torchloop_load_failures_total{model="broken"} 1.0' in client.get("/metrics").text


def test_a_checkpoint_that_answers_nan_is_not_served(tmp_path: Path) -> None:
    save_line(tmp_path, slope=3e38, offset=3e38)
    with serving(tmp_path, {"line": LINE}) as client:
        assert "NaN or infinity" in client.get("/health/ready").json()["reasons"]["line"]


def test_ready_and_live(line: TestClient) -> None:
    assert line.get("/health/live").status_code == 200
    assert line.get("/health/ready").json() == {
        "status": "ready", "reasons": {}, "without_live_version": [], "store": {},
    }  # fmt: skip


def test_metrics_are_prometheus_text(line: TestClient) -> None:
    response = line.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'torchloop_loaded_version{model="line"} 1.0' in response.text


def test_the_description_has_a_working_example_for_each_model() -> None:
    with serving() as client:
        paths = client.get("/openapi.json").json()["paths"]
        for name in shipped_specs():
            operation = paths[f"/predict/{name}"]["post"]
            example = operation["requestBody"]["content"]["application/json"]["example"]
            jsonschema.validate(example, operation["requestBody"]["content"]["application/json"]["schema"])
            answer = client.post(f"/predict/{name}", json=example)
            jsonschema.validate(answer.json(), operation["responses"]["200"]["content"]["application/json"]["schema"])
        assert set(paths["/predict/mnist"]["post"]["requestBody"]["content"]) >= {"image/png", "multipart/form-data"}


def test_the_documentation_page_needs_no_other_host() -> None:
    with serving() as client:
        page = client.get("/docs").text
        assert "http" not in page.replace("http://www.w3.org", "")
        assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200


def test_unknown_addresses_are_problem_documents(line: TestClient) -> None:
    response = line.get("/nothing/here")
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["status"]) == (404, 404)


def test_s15_an_unexpected_failure_shows_nothing_of_the_machine(tmp_path: Path) -> None:
    save_line(tmp_path)
    specs = {"line": LINE}
    settings = Settings(store=migrated(tmp_path / "store"))
    app = create_app(settings, specs, tmp_path, line_recipes, partial(InProcess, specs))

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("/secret/path")

    with TestClient(app, BASE_URL, raise_server_exceptions=False) as client:
        response = client.get("/boom")
    assert response.status_code == 500
    assert response.json()["title"] == "Internal error"
    assert "secret" not in response.text


@pytest.mark.parametrize("path", ["/train", "/models/line/promote", "/models/line/rollback", "/jobs/0/cancel"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large_is_a_problem_document_whether_it_says_so_or_not(
    line: TestClient,
    path: str,
    declared: bool,
) -> None:
    body = b" " * (MAX_JSON_BYTES + 1)
    response = line.post(path, content=body if declared else iter([body]), headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"
    assert str(MAX_JSON_BYTES) in response.json()["detail"]
