"""Query parameters that a route does not have: those near to one of its own are refused, all others are ignored."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import QueryParams
from starlette.testclient import TestClient

from service.errors import Invalid
from service.web.queries import require_known
from tests.fakes import LINE, save_line
from tests.serving import serving

MISSPELLINGS: dict[str, Callable[[str], str]] = {
    "capital": str.capitalize,
    "all capitals": str.upper,
    "brackets": "{}[]".format,
    "index": "{}[0]".format,
    "space before": "%20{}".format,
    "space after": "{}%20".format,
    "plural": "{}s".format,
    "last letter missing": lambda name: name[:-1],
    "letters swapped": lambda name: name[:-2] + name[-1] + name[-2],
    "letter doubled": lambda name: name[0] + name,
    "hyphens": lambda name: name.replace("_", "-").upper(),
}
OF_OTHERS = ("_", "utm_source", "nocache", "api_key", "access_token", "callback", "x", "", "%00", "%ff", "a" * 3000)
FILLED = {"model": "line", "version": "1", "name": "field", "index": "0", "row": "0", "digest": "0" * 64}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder: Path = tmp_path_factory.mktemp("queries")
    save_line(folder)
    with serving(folder, {"line": LINE}) as client:
        yield client


def parameters(client: TestClient) -> Iterator[tuple[str, str, str, bool]]:
    """Method, path, name, and whether it may be repeated, of every query parameter in the API's description."""
    for template, operations in client.get("/openapi.json").json()["paths"].items():
        path = template
        for name, value in FILLED.items():
            path = path.replace(f"{{{name}}}", value)
        path = path.replace("{prediction}", "0199d2c4f1a-5f3a9c1d-2b-4").replace("{", "").replace("}", "")
        for method, operation in operations.items():
            for one in operation.get("parameters", []):
                if one["in"] == "query":
                    yield method.upper(), path, one["name"], _is_list(one["schema"])


def _is_list(schema: dict[str, Any]) -> bool:
    return any(one.get("type") == "array" for one in (schema, *schema.get("anyOf", [])))


@pytest.mark.parametrize("change", MISSPELLINGS.values(), ids=MISSPELLINGS)
def test_a_misspelt_parameter_of_any_route_is_refused_by_name(line: TestClient, change: Callable[[str], str]) -> None:
    tried = 0
    for method, path, name, _ in parameters(line):
        if len(name) < 4 or change(name) == name:
            continue
        response = line.request(method, f"{path}?{change(name)}=1")
        assert response.status_code == 422, (method, path, name, response.text)
        assert f"did you mean {name}?" in response.json()["detail"]
        tried += 1
    assert tried > 2


def test_a_parameter_of_any_route_that_counts_once_is_refused_twice(line: TestClient) -> None:
    for method, path, name, repeatable in parameters(line):
        if path.startswith("/explain") or not repeatable:
            response = line.request(method, f"{path}?{name}=1&{name}=1")
            assert (response.status_code, response.json()["detail"]) == (422, f"{name} is given 2 times; give it once")


@pytest.mark.parametrize("name", OF_OTHERS)
def test_what_caches_and_trackers_add_is_ignored(line: TestClient, name: str) -> None:
    assert line.get(f"/jobs?{name}=1").status_code == 200
    assert line.post(f"/predict/line?{name}=1", json={"inputs": [[1]]}).status_code == 200


def test_several_kinds_of_events_may_be_named(line: TestClient) -> None:
    assert line.get("/events?follow=false&kind=job.*&kind=version.*").status_code == 200


def test_thousands_of_names_are_not_all_looked_at() -> None:
    query = QueryParams("&".join(f"a{number}=1" for number in range(10_000)) + "&stat=1")
    require_known(query, ["state"])
    with pytest.raises(Invalid, match="did you mean state"):
        require_known(QueryParams("a=1&stat=1"), ["state"])
