import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.logs import configure_logging
from service.settings import Settings, SettingsError, from_environment
from tests.fakes import ROOT


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = from_environment({})
    assert (settings.host, settings.port, settings.max_batch, settings.max_wait_ms) == ("127.0.0.1", 8000, 64, 0)
    assert (settings.queue_limit, settings.request_timeout_s, settings.max_body_bytes) == (1024, 10, 16_777_216)
    assert (settings.max_pixels, settings.store, settings.data) == (25_000_000, Path("store"), Path("data"))


def test_variables_become_settings_and_others_are_none_of_ours() -> None:
    settings = from_environment({"TORCHLOOP_PORT": "9", "TORCHLOOP_URL": "http://x", "TORCHLOOP_KEY": "k", "HOME": "/"})
    assert settings.port == 9


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"TORCHLOOP_PROT": "1"}, "TORCHLOOP_PROT is not a known setting; the settings are .*PORT"),
        ({"TORCHLOOP_PORT": "many"}, "TORCHLOOP_PORT: .*integer"),
        ({"TORCHLOOP_PORT": "70000"}, "TORCHLOOP_PORT: .*65535"),
        ({"TORCHLOOP_LOG_FORMAT": "xml"}, "TORCHLOOP_LOG_FORMAT: .*'text' or 'json'"),
        ({"TORCHLOOP_MAX_BATCH": "0"}, "TORCHLOOP_MAX_BATCH"),
        ({"TORCHLOOP_HOST": "0.0.0.0"}, "set TORCHLOOP_API_KEYS"),
        ({"TORCHLOOP_HOST": "example.org"}, "set TORCHLOOP_API_KEYS"),
        ({"TORCHLOOP_API_KEYS": "s3cret"}, "TORCHLOOP_API_KEYS: .*predict:KEY1"),
        ({"TORCHLOOP_API_KEYS": "root:s3cret"}, "TORCHLOOP_API_KEYS: .*predict:KEY1"),
        ({"TORCHLOOP_API_KEYS": "admin:"}, "TORCHLOOP_API_KEYS: .*predict:KEY1"),
    ],
)
def test_a_bad_setting_is_one_clear_line(environ: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as raised:
        from_environment(environ)
    assert "\n" not in str(raised.value)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("environ", [{"TORCHLOOP_PROT": "1"}, {"TORCHLOOP_DEVICE": "gpu"}])
def test_a_bad_setting_stops_the_start(environ: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("torchloop: ")
    assert done.stderr.count("\n") == 1


def test_help_lists_every_setting() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name, field in Settings.model_fields.items():
        assert f"TORCHLOOP_{name.upper()}" in done.stdout
        assert str(field.description) in done.stdout


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert from_environment({"TORCHLOOP_HOST": host}).api_keys == ()


def test_keys_are_parsed_and_their_secrets_stay_out_of_texts() -> None:
    settings = from_environment({"TORCHLOOP_HOST": "0.0.0.0", "TORCHLOOP_API_KEYS": "predict:a:b, admin:s3cret"})
    assert [(key.scope, key.secret) for key in settings.api_keys] == [("predict", "a:b"), ("admin", "s3cret")]
    assert "s3cret" not in repr(settings)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


@pytest.fixture
def root_logger() -> object:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before


@pytest.mark.usefixtures("root_logger")
def test_s19_a_log_line_has_fields_and_cannot_be_forged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text")
    logging.getLogger("x").warning("odd name", extra={"model": "a\nERROR forged \x1b[31m"})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(r"WARNING odd name model=a\nERROR forged \x1b[31m")


@pytest.mark.usefixtures("root_logger")
def test_json_logs_are_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    logging.getLogger("x").info("version live", extra={"model": "mnist", "version": 3})
    entry = json.loads(capsys.readouterr().err)
    assert (entry["message"], entry["model"], entry["version"], entry["level"]) == ("version live", "mnist", 3, "info")
