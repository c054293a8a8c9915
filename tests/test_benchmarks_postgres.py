"""The PostgreSQL server of the tests is found, also on machines without the package that carries one."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from benchmarks.postgres import Installed, NoPostgres, Postgres, Standby, installed, programs, unprivileged


def _programs(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch(0o755)
    return folder


def test_programs_on_path_come_before_those_of_debian(tmp_path: Path) -> None:
    debian = tmp_path / "debian"
    _programs(debian / "15" / "bin", "initdb", "pg_ctl")
    on_path = _programs(tmp_path / "bin", "initdb", "pg_ctl")
    assert programs(str(on_path), debian) == on_path


def test_the_newest_version_of_debian_that_has_a_server_is_taken(tmp_path: Path) -> None:
    for version in ("9.6", "15"):
        _programs(tmp_path / version / "bin", "initdb", "pg_ctl")
    _programs(tmp_path / "17" / "bin", "psql")  # a client alone
    only_client = _programs(tmp_path / "bin", "pg_ctl")
    assert programs(str(only_client), tmp_path) == tmp_path / "15" / "bin"


def test_without_a_server_the_reason_names_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(
        NoPostgres, match=r"no initdb and pg_ctl on PATH or in .*\(Debian, Ubuntu: apt install postgresql\)"
    ):
        programs(str(tmp_path), tmp_path)


def test_without_a_user_for_the_server_root_is_told_so() -> None:
    with pytest.raises(NoPostgres, match="does not run as root, and there is no user no-such-user to run it"):
        unprivileged(["no-such-user"])


def test_a_program_that_fails_is_named_with_its_output() -> None:
    with TemporaryDirectory() as folder:  # in tmp_path the user of the server could not reach it
        Path(folder).chmod(0o755)
        initdb, data = Path(folder, "initdb"), Path(folder, "data")
        initdb.write_text("#!/bin/sh\necho no space left; exit 1\n")
        initdb.chmod(0o755)
        data.mkdir()
        with pytest.raises(NoPostgres, match=r"initdb of .* failed: no space left"):
            Installed(data, Path(folder))


@pytest.mark.slow
def test_the_server_of_the_system_serves_stops_and_serves_again() -> None:
    try:
        binaries = programs(os.environ["PATH"])
    except NoPostgres as err:
        pytest.skip(str(err))
    with TemporaryDirectory() as folder:
        postgres = Postgres(Path(folder), Installed(Path(folder), binaries))
        try:
            url = postgres.create_database("one").replace("+psycopg", "")
            postgres.stop()
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(url)
            postgres.start()
            with psycopg.connect(url) as connection:
                assert connection.execute("SELECT current_database()").fetchone() == ("one",)
        finally:
            postgres.stop()


@pytest.mark.slow
def test_a_copy_takes_the_place_of_a_server_that_refused_writes_and_stopped() -> None:
    try:
        binaries = installed()
    except NoPostgres as err:
        pytest.skip(str(err))
    with TemporaryDirectory() as folder, TemporaryDirectory() as copy, ExitStack() as stack:
        server = Installed(Path(folder), binaries)
        primary = stack.enter_context(_stopped_at_the_end(server, Postgres(Path(folder), server)))
        url = primary.create_database("one").replace("+psycopg", "")
        standby = Standby(Path(copy), binaries, Path(folder))
        stack.callback(standby.stop)
        either = f"{url},{copy}&target_session_attrs=read-write"
        with psycopg.connect(either, autocommit=True) as connection:
            connection.execute("CREATE TABLE before (x int)")
        primary.refuse_writes()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(either)
        primary.stop()
        standby.promote()
        with psycopg.connect(either, autocommit=True) as connection:
            connection.execute("INSERT INTO before VALUES (1)")


@contextmanager
def _stopped_at_the_end(server: Installed, postgres: Postgres) -> Iterator[Postgres]:
    try:
        yield postgres
    finally:
        with suppress(NoPostgres):  # it has been stopped
            server.stop()
