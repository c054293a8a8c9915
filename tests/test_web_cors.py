"""Pages of other origins (CORS), and services below a path prefix; in process."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.settings import SettingsError, from_environment
from tests.each import each_holds
from tests.fakes import LINE, save_line
from tests.rules import RULES
from tests.serving import serving

APP = "https://app.example.com"
BODY = {"inputs": [[3]]}
NAMES = {"model": "line", "version": "1", "row": "1"}
ROUTES = sorted(
    re.sub(r"{(\w+)}", lambda found: NAMES.get(found[1], "0" * 32), rule.split()[1])
    for rule in RULES
    if "{path" not in rule
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_line(folder)
    return folder


@pytest.fixture(scope="module", params=["without keys", "with keys"])
def client(models: Path, request: pytest.FixtureRequest) -> Iterator[TestClient]:
    keys = "predict:reads,admin:all" if request.param == "with keys" else ""
    with serving(models, {"line": LINE}, cors_origins=f"{APP},http://localhost:3000", api_keys=keys) as client:
        if keys:
            client.headers["Authorization"] = "Bearer all"
        yield client


def preflight(client: TestClient, path: str, method: str, origin: str = APP, **more: str) -> Any:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
        "Authorization": "",
        **more,
    }
    return client.options(path, headers=headers)


@pytest.mark.many
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_preflight_of_any_route_needs_no_key_and_allows_the_key(client: TestClient, method: str) -> None:
    def check(path: str) -> None:
        response = preflight(client, path, method)
        assert response.status_code == 200
        assert response.headers.get("access-control-allow-origin") == APP
        assert method in response.headers.get("access-control-allow-methods", "")
        assert "authorization" in response.headers.get("access-control-allow-headers", "")

    each_holds(check, ROUTES)


@pytest.mark.parametrize("origin", ["https://evil.example", "http://app.example.com", f"{APP}.evil.example", "null"])
def test_an_origin_that_is_not_listed_is_rejected(client: TestClient, origin: str) -> None:
    assert "access-control-allow-origin" not in preflight(client, "/predict/line", "POST", origin).headers
    response = client.post("/predict/line", json=BODY, headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"})
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/predict/line", BODY, 200),
        ("/predict/line?version=1", BODY, 200),
        ("/predict/line", {}, 422),
        ("/predict/unknown", BODY, 404),
        ("/explain/line", BODY, 200),
        ("/preview/line", BODY, 200),
        ("/train", {"model": "line"}, 202),
        ("/models/line/promote", {"version": 9}, 404),
        ("/v2/models/line/infer", {"inputs": []}, 400),
        ("/v2/repository/index", {}, 200),
    ],
)
def test_scripts_of_a_listed_origin_can_read_every_response(
    client: TestClient, path: str, body: Any, status: int, origin: str
) -> None:
    response = client.post(path, json=body, headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"})
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == origin
    assert "Origin" in response.headers["vary"]
    assert "X-Model-Version" in response.headers["access-control-expose-headers"]


def test_a_missing_key_is_an_answer_that_the_script_can_read(models: Path) -> None:
    with serving(models, {"line": LINE}, cors_origins=APP, api_keys="predict:reads") as client:
        response = client.post("/predict/line", json=BODY, headers={"Origin": APP})
        assert response.status_code == 401
        assert response.headers["access-control-allow-origin"] == APP


def test_a_page_of_the_network_may_call_a_service_on_this_machine(client: TestClient) -> None:
    response = preflight(client, "/predict/line", "POST", **{"Access-Control-Request-Private-Network": "true"})
    assert response.headers["access-control-allow-private-network"] == "true"


def test_by_default_cors_is_off(models: Path) -> None:
    with serving(models, {"line": LINE}) as client:
        assert preflight(client, "/predict/line", "POST").status_code == 405
        response = client.post("/predict/line", json=BODY, headers={"Origin": APP})
        assert response.status_code == 403
        assert "TORCHLOOP_CORS_ORIGINS" in response.json()["detail"]
        assert "access-control-allow-origin" not in client.get("/models", headers={"Origin": APP}).headers


def test_a_star_allows_every_origin_if_there_are_keys(models: Path) -> None:
    with serving(models, {"line": LINE}, cors_origins="*", api_keys="predict:reads") as client:
        for headers in ({"Authorization": "Bearer reads"}, {}):
            marked = {**headers, "Origin": APP, "Sec-Fetch-Site": "cross-site"}
            response = client.post("/predict/line", json=BODY, headers=marked)
            assert response.status_code == (200 if headers else 401)
            assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"TORCHLOOP_CORS_ORIGINS": "*"}, "set TORCHLOOP_API_KEYS"),
        ({"TORCHLOOP_CORS_ORIGINS": "app.example.com"}, "TORCHLOOP_CORS_ORIGINS: .*https://app.example.com"),
        ({"TORCHLOOP_CORS_ORIGINS": f"{APP}/"}, "without a path"),
        ({"TORCHLOOP_CORS_ORIGINS": f"{APP}, null"}, "without a path"),
        ({"TORCHLOOP_ROOT_PATH": "torchloop"}, "TORCHLOOP_ROOT_PATH: .*/torchloop"),
        ({"TORCHLOOP_ROOT_PATH": "//evil.example"}, "TORCHLOOP_ROOT_PATH: .*/torchloop"),
        ({"TORCHLOOP_ROOT_PATH": "/a/../b"}, "TORCHLOOP_ROOT_PATH: .*/torchloop"),
        ({"TORCHLOOP_TRUSTED_PROXIES": "proxy"}, "TORCHLOOP_TRUSTED_PROXIES: .*10.0.0.1,192.168.0.0/16"),
        ({"TORCHLOOP_KEEP_ALIVE_S": "0"}, "TORCHLOOP_KEEP_ALIVE_S"),
    ],
)
def test_an_invalid_setting_stops_the_start_with_one_clear_line(environ: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as raised:
        from_environment(environ)
    assert "\n" not in str(raised.value)


def test_lists_are_separated_by_commas() -> None:
    settings = from_environment({
        "TORCHLOOP_CORS_ORIGINS": f" {APP.upper()} , http://[::1]:3000,", "TORCHLOOP_ROOT_PATH": "/a/b/",
        "TORCHLOOP_TRUSTED_PROXIES": "10.1.2.3, 192.168.7.7/16,::1",
    })  # fmt: skip
    assert settings.cors_origins == (APP, "http://[::1]:3000")
    assert settings.root_path == "/a/b"
    assert [str(network) for network in settings.trusted_proxies] == ["10.1.2.3/32", "192.168.0.0/16", "::1/128"]
    assert from_environment({}).keep_alive_s == 75
