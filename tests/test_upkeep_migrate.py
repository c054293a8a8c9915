"""torchloop migrate."""

import logging
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from service.store.database import Store, newest_revision
from service.upkeep.migrate import main
from tests.fakes import ROOT


def test_it_makes_the_tables_and_repeats_without_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHLOOP_STORE", str(tmp_path / "store"))
    assert [main([]), main([])] == [0, 0]
    assert capsys.readouterr().out.splitlines() == [
        f"tables made, revision {newest_revision()}: the database has the schema of this version",
        f"nothing to do, revision {newest_revision()}: the database has the schema of this version",
    ]
    store = Store(tmp_path / "store")
    store.require_schema()
    store.close()


def test_it_says_from_which_revision_it_came_and_so_does_a_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TORCHLOOP_STORE", str(tmp_path))
    store = Store(tmp_path)
    with store.write() as connection:
        config = Config()
        config.set_main_option("script_location", str(ROOT / "service" / "store" / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "0011")
    store.close()
    with caplog.at_level(logging.INFO):
        assert main([]) == 0
    assert capsys.readouterr().out.startswith(f"migrated from revision 0011 to {newest_revision()}: ")
    (told,) = [record.__dict__ for record in caplog.records if record.message == "database migrated"]
    assert (told["before"], told["revision"]) == ("0011", newest_revision())


def test_a_database_that_cannot_be_reached_is_status_1_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHLOOP_DATABASE_URL", "postgresql+psycopg://torchloop:secret@127.0.0.1:1/torchloop")
    assert main([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "database" in line
    assert "secret" not in line


def test_wrong_settings_are_status_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TORCHLOOP_STROE", "x")
    assert main([]) == 2
    assert "TORCHLOOP_STORE" in capsys.readouterr().err
