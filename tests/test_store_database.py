"""The tables on SQLite and PostgreSQL: migrations, transactions, unreachable databases."""

import shutil
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import func, inspect, select, text

from benchmarks.postgres import Postgres
from service.errors import StoreUnavailable
from service.jobs.queue import Jobs
from service.settings import SettingsError
from service.store import feed_tables, retrain_tables
from service.store.database import Store, newest_revision
from service.store.tables import jobs as job_table
from service.store.tables import metadata, promotions
from service.store.url import locate
from tests.fakes import ROOT


def test_the_migrations_make_the_tables_that_the_code_speaks_of(store: Store) -> None:
    for path in (ROOT / "service" / "store").glob("*_tables.py"):
        import_module(f"service.store.{path.stem}")  # adds its tables to the metadata
    with store.read() as connection:
        inspector = inspect(connection)
        assert {feed_tables.feed.name, retrain_tables.retrain.name} <= set(metadata.tables)
        assert set(metadata.tables) | {"alembic_version"} == set(inspector.get_table_names())
        for name, table in metadata.tables.items():
            found = {column["name"]: column["nullable"] for column in inspector.get_columns(name)}
            assert found == {column.name: bool(column.nullable) for column in table.columns}
            assert {index["name"] for index in inspector.get_indexes(name)} >= {index.name for index in table.indexes}


def test_the_newest_migration_is_the_last_of_the_chain() -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "service" / "store" / "migrations"))
    assert newest_revision() == ScriptDirectory.from_config(config).get_current_head()


def test_migrating_again_changes_nothing(store: Store) -> None:
    row = {"model": "m", "version": 1, "action": "promote", "at": 1.0, "by": "start", "reason": ""}
    with store.write() as connection:
        connection.execute(promotions.insert().values(row))
    store.migrate()
    with store.read() as connection:
        assert connection.scalar(select(func.count()).select_from(promotions)) == 1


def test_a_store_of_the_second_schema_opens_and_its_running_job_is_freed(tmp_path: Path, database_url: str) -> None:
    store = Store(tmp_path, database_url)
    with store.write() as connection:
        config = Config()
        config.set_main_option("script_location", str(ROOT / "service" / "store" / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        for number, state, lease_until in ((1, "running", 4e9), (2, "queued", None), (3, "succeeded", None)):
            connection.execute(
                text(
                    "INSERT INTO jobs (number, id, model, state, config, promote, attempt, released, worker,"
                    " lease_until, cancel_requested, created_at, tensorboard) VALUES (:number, :id, 'm', :state,"
                    " '{\"epochs\": 1}', 'never', 1, 0, 'w', :lease_until, false, 5.0, false)"
                ),
                {"number": number, "id": f"job-{number}", "state": state, "lease_until": lease_until},
            )
    store.migrate()
    jobs = Jobs(store)
    assert [(job.id, job.state, job.lease_s) for job in jobs.page(limit=9)] == [
        ("job-3", "succeeded", 6), ("job-2", "queued", 6), ("job-1", "running", 6),
    ]  # fmt: skip
    claimed = [jobs.claim("w", now=9, monotonic_s=tick, lease_s=6) for tick in range(8)]
    assert [job.id for job in claimed if job] == ["job-2", "job-1"]
    store.close()


@pytest.mark.slow
def test_processes_that_start_together_migrate_once(tmp_path: Path, database_url: str) -> None:
    code = (
        "import sys; from pathlib import Path; from service.store.database import Store\n"
        "Store(Path(sys.argv[1]), sys.argv[2]).migrate()"
    )
    command = [sys.executable, "-c", code, str(tmp_path), database_url]
    started = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    row = {"model": "m", "version": 1, "action": "promote", "at": 1.0, "by": "start", "reason": ""}

    def write_and_fail() -> None:
        with store.write() as connection:
            connection.execute(promotions.insert().values(row))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with store.read() as connection:
        assert connection.scalar(select(func.count()).select_from(promotions)) == 0


def _fail() -> None:
    raise ZeroDivisionError


def test_writers_take_turns_so_that_what_was_read_is_still_true(store: Store) -> None:
    def add_next() -> None:
        for _ in range(10):
            with store.write() as connection:
                top = connection.scalar(select(func.max(promotions.c.version))) or 0
                row = {"model": "m", "version": top + 1, "action": "promote", "at": 1.0, "by": "x", "reason": ""}
                connection.execute(promotions.insert().values(row))

    threads = [threading.Thread(target=add_next) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as connection:
        assert list(connection.scalars(select(promotions.c.version).order_by(promotions.c.id))) == list(range(1, 41))


HOLDER = """
import sys
from pathlib import Path
from service.errors import StoreUnavailable
from service.store.database import Store, newest_revision
try:
    with Store(Path(sys.argv[1]), sys.argv[2]).write() as connection:
        print("holds the lock", flush=True)
        sys.stdin.readline()
except StoreUnavailable:
    print("lost it")
"""


@pytest.mark.slow
def test_a_process_frozen_in_a_transaction_stops_nobody_else(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create_database("frozen")
    store = Store(tmp_path, url)
    store.migrate()
    command = [sys.executable, "-c", HOLDER, str(tmp_path), url]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as frozen:
        assert frozen.stdout is not None
        frozen.stdout.readline()
        with store.write() as connection:
            connection.execute(select(job_table))
        assert frozen.communicate("wake up\n", timeout=60)[0] == "lost it\n"
    store.close()


def test_a_database_out_of_reach_is_said_so_without_its_address(tmp_path: Path) -> None:
    store = Store(tmp_path, f"postgresql+psycopg://user:s3cret@/x?host={tmp_path}/nowhere")
    with pytest.raises(StoreUnavailable) as raised, store.read() as connection:
        connection.execute(select(job_table))
    assert "nowhere" not in raised.value.detail
    assert "s3cret" not in raised.value.detail


def test_a_store_folder_that_cannot_be_made_is_named_by_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="TORCHLOOP_STORE"):
        Store(tmp_path / "file" / "store").migrate()


@pytest.mark.parametrize(
    "url",
    ["nonsense", "mysql://x", "postgresql://x", "postgresql+psycopg2://x", "postgresql+psycopg://x:s3cret@h:port/x"],
)
def test_an_unsupported_database_names_the_setting_and_the_way_out(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^TORCHLOOP_DATABASE_URL: .*postgresql\+psycopg://") as raised:
        Store(tmp_path, url)
    assert "s3cret" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["service", "service.worker", "service.register regressor x.pt"])
def test_an_unsupported_database_stops_the_start_of_each_command(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=ROOT,
        env={"TORCHLOOP_DATABASE_URL": "mysql://x", "TORCHLOOP_STORE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(
        "torchloop: TORCHLOOP_DATABASE_URL: mysql is not supported; use postgresql+psycopg://"
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.many
@pytest.mark.parametrize(
    "name", ["100%", "feature%2Fdigits", "%(here)s", "a b", "a?b=c", "a#b", "a&b;c", "größe", "数字", "~x"]
)
def test_a_store_folder_with_special_characters_holds_the_database(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / name / "store")
    store.migrate()
    store.close()
    assert (tmp_path / name / "store" / "torchloop.db").stat().st_size > 0


@pytest.mark.parametrize("name", ["100%", "a b", "a#b", "größe"])
def test_a_database_url_with_special_characters_names_that_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    store = Store(tmp_path / "store", f"sqlite:///{tmp_path / name / 'torchloop.db'}")
    store.migrate()
    store.close()
    assert (tmp_path / name / "torchloop.db").stat().st_size > 0


def test_the_home_folder_in_a_database_url_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("sqlite:///~/torchloop.db", Path("store")).database == f"{tmp_path}/torchloop.db"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["100%", "feature%2Fdigits", "a b#c?d", "größe"])
def test_the_migrations_are_found_in_a_checkout_with_special_characters(name: str, tmp_path: Path) -> None:
    for package in ("models", "service"):
        shutil.copytree(ROOT / package, tmp_path / name / package, ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
    code = "from pathlib import Path; from service.store import database; store = database.Store(Path('store'))\n"
    code += "store.migrate(); print(database.__file__)"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=tmp_path / name, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / name))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="it names no file"):
        locate(url, Path("store"))


def test_a_connection_returned_after_the_store_was_closed_is_closed(store: Store) -> None:
    with store._engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        store.close()
        assert raw is not None
    with pytest.raises(Exception, match="closed"):
        raw.cursor().execute("SELECT 1")


def test_a_transaction_that_need_not_be_durable_does_not_wait_for_the_disk(store: Store) -> None:
    """Heartbeats: on PostgreSQL the flush to disk would keep all other writers waiting."""
    with store.write(durable=False) as connection:
        if connection.dialect.name == "postgresql":
            assert connection.scalar(text("SHOW synchronous_commit")) == "off"
    with store.write() as connection:
        if connection.dialect.name == "postgresql":
            assert connection.scalar(text("SHOW synchronous_commit")) == "on"


def test_tables_of_a_later_release_are_refused_in_words_and_stay(store: Store) -> None:
    with store.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnavailable, match=r"revision 9999.*restore a backup"):
        store.migrate()
    with store.read() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
