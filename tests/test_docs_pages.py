"""Run the commands of every page under docs/, and check the links."""

import ast
import re
from pathlib import Path

import pytest

from models.checkpoints.layout import content_name
from models.checkpoints.record import read_verified
from service.delivery.registry import Registry
from service.store.database import Store
from tests.documents import PAGES, README, blocks, copy_of_the_checkout, do
from tests.fakes import ROOT, shipped_specs
from tests.sources import FILES

DOCS = ROOT / "docs"
ALL = [README, *PAGES]
PROGRAMS = [
    ROOT / "environment.py",
    *(path for name in ("service", "training", "models") for path in (ROOT / name).rglob("*.py")),
    *(ROOT / "service" / "page").glob("*.js"),
]
LANGUAGES = {"sh", "console", "json", "text", "python", "yaml", ""}

# What no test can run, by the page and the first line of its block, and why. It is complete: see below.
NOT_RUN = {
    ("operating.md", "export TORCHLOOP_DATABASE_URL=postgresql+psycopg://..."): "takes several machines",
    ("several-machines.md", "$ torchloop promote mnist 3"): "takes several machines; tests/test_e2e_nodes.py has them",
    ("several-machines.md", "export TORCHLOOP_DATABASE_URL=postgresql+psycopg://..."): "takes several machines",
    (
        "several-machines.md",
        "export RAY_AUTH_MODE=token ...",
    ): "takes several machines; see tests/test_cluster_ray.py",
    (
        "several-machines.md",
        "export TORCHLOOP_HOST=0.0.0.0 ...",
    ): "takes several machines; see tests/test_cluster_web.py",
    ("several-machines.md", "torchloop submit mnist --nodes 2 ..."): "takes a cluster; see tests/test_cluster_ray.py",
    ("operating.md", "export POSTGRES_PASSWORD=$(openssl rand -hex 24)"): "takes Docker",
    ("operating.md", "pg_dump --format=custom ..."): "takes a PostgreSQL server",
    ("several-machines.md", 'pip install "torchloop[s3]"'): "takes an object store",
    (
        "operating.md",
        'pip install "torchloop[openvino]"',
    ): "installs a package; tests/test_checkpoints_openvino.py has it",
    (
        "several-machines.md",
        "torchloop artifacts copy ...",
    ): "takes an object store; tests/test_upkeep_artifacts.py has one",
    ("several-machines.md", "WEB_PORTS=8000-8003 docker compose ..."): "takes Docker",
    ("several-machines.md", "kubectl create namespace torchloop"): "takes Kubernetes",
    ("operating.md", "$ OTEL_EXPORTER_OTLP_ENDPOINT=..."): "takes a collector; tests/test_telemetry_tracing.py has one",
    ("operating.md", "$ curl -sN http://127.0.0.1:8000/events?kind=version..."): "the stream does not end",
    (
        "captures.md",
        "$ curl http://127.0.0.1:8000/train ...",
    ): "takes minutes; examples/learn.py, which the README runs, has it",
    ("operating.md", "mv store store.broken"): "starts the service a second time; the copy is looked into instead",
    ("operating.md", "export TORCHLOOP_METRICS_KEY=..."): "takes Docker",
    (
        "install.md",
        "$ python3 environment.py ...",
    ): "downloads PyTorch; tests/test_environment.py tries its parts",
    ("install.md", "$ python3 -m venv .venv ..."): "downloads PyTorch; tests/test_command.py installs the built wheel",
    ("adding-a-model.md", "$ docker run -v ..."): "takes Docker",
    ("benchmarks.md", "python -m benchmarks ..."): "takes a quiet machine and a quarter of an hour",
    ("benchmarks.md", "make bench ARGS=cluster"): "takes HAProxy, Ray and minutes",
}


def shown(page: Path) -> set[str]:
    """Ways in which NOT_RUN may name the page's console blocks."""
    return {block.text.splitlines()[0] for block in blocks(page) if block.language == "console"}


@pytest.mark.slow
def test_the_commands_of_the_api_page_answer_as_it_says(tmp_path: Path) -> None:
    copy = copy_of_the_checkout(tmp_path, DOCS / "api.md")
    do(DOCS / "api.md", copy)
    assert (copy / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_commands_of_the_clients_page_answer_as_it_says(tmp_path: Path) -> None:
    do(DOCS / "client.md", copy_of_the_checkout(tmp_path, DOCS / "client.md"))


@pytest.mark.slow
def test_the_commands_of_the_operating_page_answer_as_it_says_and_its_backup_is_whole(tmp_path: Path) -> None:
    copy = copy_of_the_checkout(tmp_path, DOCS / "operating.md")
    do(DOCS / "operating.md", copy)
    store = Store(copy / "backup")
    registry = Registry(store)
    assert registry.live().keys() == shipped_specs().keys()
    for model, number in registry.live().items():
        path = registry.path(registry.version(model, number))
        _, record = read_verified(model, path, None)
        assert path.name == content_name(record.sha256)
    store.close()


@pytest.mark.slow
def test_the_model_of_the_page_on_signatures_is_trained_served_and_tested(tmp_path: Path) -> None:
    page = DOCS / "signatures.md"
    files = ["models/review.py", "models/review_network.py", "training/review.py"]
    assert [block.file for block in blocks(page) if block.file] == files
    do(page, copy_of_the_checkout(tmp_path, page))


@pytest.mark.slow
def test_the_route_of_the_page_for_newcomers_is_replaced_by_one_file(tmp_path: Path) -> None:
    page = DOCS / "coming-from.md"
    assert [block.file for block in blocks(page) if block.file] == ["models/rent.py"]
    do(page, copy_of_the_checkout(tmp_path, page))


def test_every_log_message_of_the_operating_page_is_logged() -> None:
    table = (DOCS / "operating.md").read_text().split("| message | meaning |")[1].split("\n\n")[0]
    named = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(.+?)`", row)]
    source = "".join(path.read_text() for path in FILES)
    assert len(named) > 5
    for message in named:
        assert re.search(rf'log\.\w+\(\s*"{re.escape(message.removesuffix("..."))}', source), message


def test_what_is_not_run_is_listed_with_its_reason() -> None:
    listed = {(page, line.removesuffix("...").rstrip()) for page, line in NOT_RUN}
    found = {(page.name, line) for page in ALL for line in shown(page)}
    assert len(found) == len(listed)
    for page, line in found:
        assert any(page == other and line.startswith(start) for other, start in listed), (page, line)
    assert all(NOT_RUN.values())


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_every_block_of_a_page_is_of_a_known_kind_and_every_fence_is_closed(page: Path) -> None:
    assert page.read_text().count("\n```") == 2 * len(blocks(page))
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page.name}: {block.language}"
        if block.language == "python":
            ast.parse(block.text)


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(((?!https?:)[^)#]*)(?:#([^)]*))?\)", page.read_text()):
        path = (page.parent / target) if target else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, anchor


def test_every_message_of_the_troubleshooting_page_is_in_the_source() -> None:
    """A heading quotes messages in code spans; `...` and names in capitals stand for what varies."""
    source = "".join(path.read_text() for path in PROGRAMS)
    said = re.sub(r'"\s*f?"', "", source).replace("{PREFIX}", "TORCHLOOP_")  # adjacent literals are one message
    headings = re.findall(r"^\*\*(.+?)\*\*", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE | re.DOTALL)
    quotes = [" ".join(quote.split()) for heading in headings for quote in re.findall(r"`([^`]+)`", heading)]
    parts = [part.strip(" ,;:") for quote in quotes for part in re.split(r"\.\.\.|\b[A-Z]{2,}\b=?", quote)]
    assert len(parts) > 20
    assert not [part for part in parts if part not in said]


@pytest.mark.slow
def test_the_commands_of_the_page_on_datasets_print_what_it_says(tmp_path: Path) -> None:
    do(DOCS / "datasets.md", copy_of_the_checkout(tmp_path, DOCS / "datasets.md"))


@pytest.mark.slow
def test_the_commands_of_the_page_on_captures_print_what_it_says(tmp_path: Path) -> None:
    do(DOCS / "captures.md", copy_of_the_checkout(tmp_path, DOCS / "captures.md"))


@pytest.mark.slow
def test_the_tests_of_the_testing_page_pass(tmp_path: Path) -> None:
    do(DOCS / "testing.md", copy_of_the_checkout(tmp_path, DOCS / "testing.md"))


@pytest.mark.slow
def test_the_trials_of_the_page_on_trials_end_as_it_says(tmp_path: Path) -> None:
    do(DOCS / "trials.md", copy_of_the_checkout(tmp_path, DOCS / "trials.md"))
