"""GET /nodes: this service, on one machine the only one."""

from pathlib import Path

from tests.fakes import LINE, save_line
from tests.serving import serving


def test_a_service_lists_itself_with_its_address_and_what_it_has_loaded(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}, port=81) as client:
        answer = client.get("/nodes").json()
        (node,) = answer["nodes"]
        assert node["id"] == answer["node"]
        assert (node["address"], node["state"], node["processes"]) == ("127.0.0.1:81", "serving", 1)
        assert node["loaded"].keys() == {"line"}
        assert node["load"] == {"waiting": 0, "requests_per_s": 0}
        assert node["started_at"].endswith("Z")


def test_a_key_of_any_scope_may_list_the_nodes(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}, api_keys="predict:reader") as client:
        assert client.get("/nodes").status_code == 401
        assert client.get("/nodes", headers={"Authorization": "Bearer reader"}).status_code == 200
