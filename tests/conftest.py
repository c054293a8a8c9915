"""Fixtures that several test files share."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
from hypothesis import settings

from service.store.database import Store
from tests.postgres import NoPostgres, Postgres

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=20)
settings.register_profile("fuzz", deadline=None, max_examples=200, print_blob=True)  # make fuzz
settings.load_profile("repeatable")
_ALL_SLOW = re.compile(r"^pytestmark = \[?pytest\.mark\.slow\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import files that hold slow tests only if these are left out: their imports take seconds."""
    left_out = config.option.markexpr == "not slow" and collection_path.suffix == ".py"
    return True if left_out and _ALL_SLOW.search(collection_path.read_text()) else None


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


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest) -> str:
    """The setting of each database: "" for SQLite in the store folder, a fresh database's URL for PostgreSQL."""
    if request.param == "sqlite":
        return ""
    server: Postgres = request.getfixturevalue("postgres")
    return server.create_database(f"t{uuid4().hex}")


@pytest.fixture
def store(tmp_path: Path, database_url: str) -> Iterator[Store]:
    """An empty, migrated store, once on each database."""
    store = Store(tmp_path / "store", database_url)
    store.migrate()
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
