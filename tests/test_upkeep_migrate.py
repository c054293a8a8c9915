"""torchloop migrate."""

from pathlib import Path

import pytest

from service.store.database import Store
from service.upkeep.migrate import main


def test_it_makes_the_tables_and_repeats_without_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHLOOP_STORE", str(tmp_path / "store"))
    assert [main([]), main([])] == [0, 0]
    assert "has the schema of this version" in capsys.readouterr().out
    store = Store(tmp_path / "store")
    store.require_schema()
    store.close()


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
