"""The service below a path prefix: routes, page, documentation and addresses in answers."""

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.web.prefix import route_path
from tests.fakes import LINE, save_line
from tests.serving import serving

BODY = {"inputs": [[3]]}
PREFIXES = ["/torchloop", "/team-a/v1.2", "/predict", "/v2"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_line(folder)
    return folder


@pytest.fixture(scope="module", params=PREFIXES)
def named(models: Path, request: pytest.FixtureRequest) -> Iterator[tuple[TestClient, str]]:
    """A service whose prefix is set; the proxy leaves it in the path."""
    with serving(models, {"line": LINE}, root_path=request.param) as client:
        yield client, request.param


@pytest.fixture(scope="module")
def trusting(models: Path) -> Iterator[TestClient]:
    """A service that trusts the proxies of 10.0.0.0/8."""
    with serving(models, {"line": LINE}, trusted_proxies="10.0.0.0/8") as client:
        yield client


@pytest.fixture(scope="module")
def trusting_loopback(models: Path) -> Iterator[TestClient]:
    """A service that trusts a proxy on this machine."""
    with serving(models, {"line": LINE}, trusted_proxies="127.0.0.1") as client:
        yield client


def behind(app: TestClient, address: str) -> TestClient:
    """A client of the started application whose requests come from `address`."""
    return TestClient(app.app, str(app.base_url), client=(address, 5))


def check(client: TestClient, before: str, prefix: str, **headers: str) -> None:
    """Ask for everything at `before`; addresses in the answers begin with `prefix`."""

    def ask(method: str, path: str, **arguments: Any) -> Any:
        return client.request(method, before + path, headers=headers, **arguments)

    assert ask("POST", "/predict/line", json=BODY).json()["predictions"] == [{"value": 7}]
    assert ask("POST", "/predict/nothing", json=BODY).status_code == 404
    assert ask("POST", "/v2/models/line/infer", json={"inputs": []}).json()["error"].startswith("Malformed")
    assert ask("GET", "/v2/models/line").json()["name"] == "line"
    assert ask("GET", "/nothing").json()["title"] == "Not found"
    assert ask("PUT", "/models").headers["allow"] == "GET, HEAD"
    job = ask("POST", "/train", json={"model": "line"})
    assert job.headers["location"] == f"{prefix}/jobs/{job.json()['id']}"
    page = ask("GET", "/")
    files = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
    assert len(files) > 3
    for name in files:
        assert not name.startswith("/"), "the page's addresses are relative to it"
        assert ask("GET", f"/{name}").status_code == 200
    assert ask("GET", "/openapi.json").json()["servers"] == [{"url": prefix}]
    docs = ask("GET", "/docs").text
    assert f"{prefix}/openapi.json" in docs
    for name in re.findall(r'(?:href|src)="([^"]+)"', docs):
        assert name.startswith(f"{prefix}/static-offline-docs/")
        assert ask("GET", name.removeprefix(prefix)).status_code == 200


@pytest.mark.many
def test_everything_is_answered_below_the_prefix(named: tuple[TestClient, str]) -> None:
    client, prefix = named
    check(client, prefix, prefix)


@pytest.mark.parametrize("prefix", ["/torchloop", "/team-a/v1.2"])
def test_a_proxy_may_remove_the_prefix(models: Path, prefix: str) -> None:
    with serving(models, {"line": LINE}, root_path=prefix) as client:
        check(client, "", prefix)


def test_the_prefix_itself_leads_to_the_page(named: tuple[TestClient, str]) -> None:
    client, prefix = named
    response = client.get(prefix, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (308, f"{prefix}/")


@pytest.mark.many
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("sent", ["{}", "{}/", " {} "])
def test_a_trusted_proxy_names_the_prefix_that_it_removed(trusting: TestClient, prefix: str, sent: str) -> None:
    check(behind(trusting, "10.1.2.3"), "", prefix, **{"X-Forwarded-Prefix": sent.format(prefix)})


def test_several_proxies_name_a_prefix_each(models: Path) -> None:
    with serving(models, {"line": LINE}, trusted_proxies="10.0.0.0/8", root_path="/set") as client:
        check(behind(client, "10.1.2.3"), "", "/a/b", **{"X-Forwarded-Prefix": "/a, /b"})


@pytest.mark.parametrize("client_address", ["10.1.2.3", "192.168.1.1", "", "testclient", "::1"])
@pytest.mark.parametrize("sent", ["/elsewhere", "//evil.example", "/<script>", "/a b", "javascript:", "/..", "/%2e"])
def test_prefixes_of_untrusted_proxies_and_invalid_prefixes_are_ignored(
    trusting: TestClient, trusting_loopback: TestClient, sent: str, client_address: str
) -> None:
    client = behind(trusting if sent != "/elsewhere" else trusting_loopback, client_address)
    response = client.get("/docs", headers={"X-Forwarded-Prefix": sent})
    assert response.status_code == 200
    assert sent not in response.text.replace("<script>", "")
    assert "'/openapi.json'" in response.text


def test_an_address_of_ipv4_inside_ipv6_is_the_same_proxy(trusting: TestClient) -> None:
    client = behind(trusting, "::ffff:10.1.2.3")
    assert "'/p/openapi.json'" in client.get("/docs", headers={"X-Forwarded-Prefix": "/p"}).text


def test_keys_are_checked_below_a_prefix_as_without_one(models: Path) -> None:
    with serving(models, {"line": LINE}, root_path="/p", api_keys="predict:reads,admin:all") as client:
        reads = {"Authorization": "Bearer reads"}
        for before in ("", "/p"):
            assert client.get(f"{before}/models").status_code == 401
            assert client.get(f"{before}/models", headers=reads).status_code == 200
            assert client.post(f"{before}/models/line/rollback", headers=reads).status_code == 403
            assert client.get(f"{before}/health/live").status_code == 200
        assert client.get("/p/p/health/live").status_code == 401
        assert client.get("/pmodels", headers=reads).status_code in {403, 404}


def test_the_route_path_is_the_path_without_the_prefix() -> None:
    assert route_path({"path": "/a/b", "root_path": "/a"}) == "/b"
    assert route_path({"path": "/a/b"}) == "/a/b"


def test_the_documentation_allows_its_own_script_only_and_no_frames(models: Path) -> None:
    with serving(models, {"line": LINE}) as client:
        response = client.get("/docs")
        policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
        (script,) = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert policy["script-src"] == f"'self' 'sha256-{digest}'"
        assert policy["frame-ancestors"] == policy["default-src"] == policy["base-uri"] == "'none'"
        assert response.headers["x-content-type-options"] == "nosniff"
