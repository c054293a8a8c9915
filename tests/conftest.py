"""Fixtures that several test files share."""

import gc
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import settings

from benchmarks.objects import S3Server
from benchmarks.postgres import NoPostgres, Postgres
from service.store.database import Store
from tests.templates import migrated

# The OpenMP of PyTorch reads it when it is loaded, here and in subprocesses. Otherwise its threads wait for one another
# in busy loops, which costs half of the CPU time of a small training while other tests have the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if TYPE_CHECKING:  # only the tests of the page need it
    from playwright.sync_api import Browser, Page

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=20)
settings.register_profile("fuzz", deadline=None, max_examples=200, print_blob=True)  # make fuzz
settings.load_profile("repeatable")
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
_PATIENCE_MS = 120_000  # a machine under load; what is there is seen at once
_ALL_SLOW = re.compile(r"^pytestmark = \[?pytest\.mark\.slow\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import files that hold slow tests only if these are left out: their imports take seconds."""
    left_out = config.option.markexpr == "not slow" and collection_path.suffix == ".py"
    return True if left_out and _ALL_SLOW.search(collection_path.read_text()) else None


@pytest.hookimpl(tryfirst=True)  # before the marks select
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow all cases but the first of a test that tries one behaviour in many cases."""
    seen: set[str] = set()
    for item in items:
        if item.get_closest_marker("many") and not item.get_closest_marker("slow"):
            function = item.nodeid.partition("[")[0]
            if function in seen:
                item.add_marker("slow")
            seen.add(function)


def pytest_collection_finish() -> None:
    """Collect garbage rarely, and leave out the imported modules and the collected tests.

    Full collections took a sixth of the time of tests that start an application each.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)  # the default is 700, 10, 10


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of the tests' own, on a socket in a temporary folder; without one the test is skipped."""
    with TemporaryDirectory() as folder:
        try:
            server = Postgres(Path(folder))
        except NoPostgres as err:
            pytest.skip(str(err))
        yield server
        server.stop()


@pytest.fixture(scope="session")
def _migrated_database(postgres: Postgres) -> str:
    """The name of a database with the tables of today, to be copied."""
    with TemporaryDirectory() as folder:
        store = Store(Path(folder), postgres.create_database("migrated"))
        store.migrate()
        store.close()
    return "migrated"


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3(_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """An S3 server, and the environment variables of its clients."""
    for name, value in _s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return _s3_server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The setting of each database: "" for SQLite in the store folder, a fresh database's URL for PostgreSQL.

    It has the tables of today if the test takes the fixture `store`, too.
    """
    if request.param == "sqlite":
        yield ""
        return
    server: Postgres = request.getfixturevalue("postgres")
    is_migrated = "store" in request.fixturenames
    template = request.getfixturevalue("_migrated_database") if is_migrated else "template1"
    name = f"t{uuid4().hex}"
    yield server.create_database(name, template=template)
    server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # its files are many: the end of the server would take long


@pytest.fixture
def store(tmp_path: Path, database_url: str) -> Iterator[Store]:
    """An empty, migrated store, once on each database."""
    store = Store(tmp_path / "store", database_url)
    if not database_url:
        migrated(store.folder)
    yield store
    store.close()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """An empty, migrated store on SQLite, in `tmp_path`."""
    store = Store(migrated(tmp_path))
    yield store
    store.close()


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The data folder, where it holds the MNIST files; the test is skipped elsewhere."""
    folder = Path(os.environ.get("TORCHLOOP_DATA") or "data")
    if not (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").exists():
        pytest.skip("the MNIST files are not in the data folder: set TORCHLOOP_DATA to try this on real images")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: as fast for small batches, and no slower where several test runs share the cores."""
    import torch  # noqa: PLC0415 - so that tests without networks run without it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """The system's Chromium; without one the test is skipped."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    found = next((path for path in map(shutil.which, _CHROMIUM) if path), None)
    if found is None:
        pytest.skip("THE PAGE IS NOT TESTED: there is no chromium on this machine; install the system's package")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "Browser") -> Iterator["Page"]:
    """Open a new tab; fail the test on a JavaScript error."""
    from playwright.sync_api import expect  # noqa: PLC0415

    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(_PATIENCE_MS)
    expect.set_options(timeout=_PATIENCE_MS)
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    yield page
    context.close()
    assert not failures
