import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.logs import configure_logging
from service.settings import (
    Settings,
    SettingsError,
    for_training,
    for_worker,
    from_environment,
    log_service_variables,
    service_variables,
)
from tests.fakes import ROOT


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = from_environment({})
    assert (settings.host, settings.port, settings.max_batch, settings.max_wait_ms) == ("127.0.0.1", 8000, 64, 0)
    assert (settings.queue_limit, settings.request_timeout_s, settings.max_body_bytes) == (1024, 10, 16_777_216)
    assert (settings.max_pixels, settings.store, settings.data) == (25_000_000, Path("store"), Path("data"))


def test_variables_become_settings_and_others_are_none_of_ours() -> None:
    settings = from_environment({"TORCHLOOP_PORT": "9", "TORCHLOOP_URL": "http://x", "TORCHLOOP_KEY": "k", "HOME": "/"})
    assert settings.port == 9


def test_an_object_store_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    url = {"TORCHLOOP_ARTIFACTS": "s3://bucket/prefix/"}
    assert from_environment(url).artifacts == "s3://bucket/prefix"
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(SettingsError, match=r'TORCHLOOP_ARTIFACTS: object .*: pip install "torchloop\[s3\]"'):
        from_environment(url)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"TORCHLOOP_PROT": "1"}, r"TORCHLOOP_PROT is not a known setting; did you mean TORCHLOOP_PORT\?"),
        (
            {"TORCHLOOP_ZZQQXX": "1"},
            "ZZQQXX is not a known setting; the settings are .*TORCHLOOP_PORT",
        ),
        ({"TORCHLOOP_ARTIFACTS": os.devnull}, "TORCHLOOP_ARTIFACTS: .*not a folder"),
        ({"TORCHLOOP_ARTIFACTS": "ftp://a/b"}, "TORCHLOOP_ARTIFACTS: write a folder, s3://BUCKET/PREFIX, "),
        ({"TORCHLOOP_ARTIFACTS": "s3://"}, "TORCHLOOP_ARTIFACTS: write a folder, s3://BUCKET/PREFIX, "),
        (
            {"TORCHLOOP_ARTIFACTS": "s3:/bucket/p"},
            "TORCHLOOP_ARTIFACTS: write two slashes after the colon, as in s3://",
        ),
        ({"TORCHLOOP_ARTIFACTS": "s3:bucket"}, "TORCHLOOP_ARTIFACTS: write two slashes"),
        ({"TORCHLOOP_ARTIFACTS": "s3://bucket/../p"}, "TORCHLOOP_ARTIFACTS: write a folder, s3://BUCKET/PREFIX, "),
        ({"TORCHLOOP_STORE": os.devnull}, "TORCHLOOP_STORE: .*not a folder"),
        ({"TORCHLOOP_PORT": "many"}, "TORCHLOOP_PORT: .*integer"),
        ({"TORCHLOOP_PORT": '"8000"'}, 'TORCHLOOP_PORT: is in quotes ", .* --env-file keeps: leave them out'),
        ({"TORCHLOOP_HOST": "'127.0.0.1'"}, "TORCHLOOP_HOST: is in quotes ', .*: leave them out"),
        ({"TORCHLOOP_HOST": os.fsdecode(b"a\xff")}, "TORCHLOOP_HOST: has bytes that are not UTF-8: set it again"),
        ({"TORCHLOOP_PORT": "70000"}, "TORCHLOOP_PORT: .*65535"),
        ({"TORCHLOOP_LOG_FORMAT": "xml"}, "TORCHLOOP_LOG_FORMAT: .*'text' or 'json'"),
        ({"TORCHLOOP_MAX_BATCH": "0"}, "TORCHLOOP_MAX_BATCH"),
        ({"TORCHLOOP_HOST": "0.0.0.0"}, "set TORCHLOOP_API_KEYS"),
        ({"TORCHLOOP_HOST": "example.org"}, "set TORCHLOOP_API_KEYS"),
        ({"TORCHLOOP_MAX_RESOURCES": "8"}, 'TORCHLOOP_MAX_RESOURCES: write it as "cpus=8,gpus=1,nodes=4"'),
        ({"TORCHLOOP_MAX_RESOURCES": "cores=8"}, 'TORCHLOOP_MAX_RESOURCES: write it as "cpus=8,gpus=1,nodes=4"'),
        ({"TORCHLOOP_MAX_RESOURCES": "gpus=2"}, "TORCHLOOP_MAX_RESOURCES: gpus: .*less than or equal to 1"),
        ({"TORCHLOOP_MAX_RESOURCES": "cpus=4,nodes=nan"}, "TORCHLOOP_MAX_RESOURCES: nodes: .*integer"),
        ({"TORCHLOOP_MAX_RESOURCES": "gpus=0,gpus=1"}, 'TORCHLOOP_MAX_RESOURCES: write it as "cpus=8,gpus=1,nodes=4"'),
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


@pytest.mark.parametrize("value", ["", " ", "\t"])
@pytest.mark.parametrize("name", [*Settings.model_fields, "prot"])
def test_an_empty_variable_counts_as_unset(name: str, value: str) -> None:
    assert from_environment({f"TORCHLOOP_{name.upper()}": value}) == Settings()


def of_a_service(name: str, port: int, protocol: str, port_name: str | None = None) -> dict[str, str]:
    """The variables of a Kubernetes service, as the kubelet makes them."""
    begin = name.upper().replace("-", "_")
    url = f"{protocol.lower()}://10.0.0.7:{port}"
    of_port = f"{begin}_PORT_{port}_{protocol}"
    variables = {
        f"{begin}_SERVICE_HOST": "10.0.0.7",
        f"{begin}_SERVICE_PORT": str(port),
        f"{begin}_PORT": url,
        of_port: url,
        f"{of_port}_PROTO": protocol.lower(),
        f"{of_port}_PORT": str(port),
        f"{of_port}_ADDR": "10.0.0.7",
    }
    if port_name:
        variables[f"{begin}_SERVICE_PORT_{port_name.upper().replace('-', '_')}"] = str(port)
    return variables


@pytest.mark.parametrize("protocol", ["TCP", "UDP", "SCTP"])
@pytest.mark.parametrize("port_name", [None, "http", "http-metrics", "p8000"])
@pytest.mark.parametrize("name", ["torchloop", "torchloop-web", "torchloop-max", "torchloop-store-2", "torchloop-port"])
def test_variables_of_a_kubernetes_service_are_ignored_and_named(name: str, port_name: str, protocol: str) -> None:
    variables = of_a_service(name, 8000, protocol, port_name)
    assert from_environment({**variables, "TORCHLOOP_MAX_BATCH": "3"}) == Settings(max_batch=3)
    assert service_variables({**variables, "TORCHLOOP_PORT_NAME": "x"}) == sorted(variables)


@pytest.mark.usefixtures("root_logger")
def test_variables_of_a_kubernetes_service_are_one_line_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text")
    log_service_variables({"TORCHLOOP_PORT": "8000"})
    assert capsys.readouterr().err == ""
    log_service_variables({"TORCHLOOP_PORT": "tcp://10.0.0.7:80", "TORCHLOOP_SERVICE_HOST": "10.0.0.7"})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("variables=TORCHLOOP_PORT, TORCHLOOP_SERVICE_HOST")


@pytest.mark.parametrize("name", ["PORT_80", "SERVICE", "HOST_SERVICE", "PORT_TCP", "SERVICEPORT", "PORT_8000_ICMP"])
def test_similar_names_are_unknown_settings_all_the_same(name: str) -> None:
    with pytest.raises(SettingsError, match=f"TORCHLOOP_{name} is not a known setting"):
        from_environment({f"TORCHLOOP_{name}": "1"})


@pytest.mark.parametrize("name", ["store", "data"])
def test_the_home_folder_is_expanded_in_paths(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of/someone")
    for value, path in (("~/x", "/home/of/someone/x"), ("~", "/home/of/someone"), ("a~b", "a~b"), ("/~/x", "/~/x")):
        assert getattr(from_environment({f"TORCHLOOP_{name.upper()}": value}), name) == Path(path)
    with pytest.raises(SettingsError, match=f"^TORCHLOOP_{name.upper()}: the home folder of ~nosuchuser is unknown"):
        from_environment({f"TORCHLOOP_{name.upper()}": "~nosuchuser/x"})


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "http://localhost", "[::1]:8000", "[]", "127.0.0.1/8", "a b", "::1]"]
)
def test_a_host_with_more_than_a_host_is_refused_and_both_settings_are_named(host: str) -> None:
    with pytest.raises(SettingsError, match=r"^TORCHLOOP_HOST: write a name or an address alone.*TORCHLOOP_PORT"):
        from_environment({"TORCHLOOP_HOST": host, "TORCHLOOP_API_KEYS": "admin:x"})


@pytest.mark.parametrize("address", ["http://10.0.0.5", "10.0.0.5:0", "10.0.0.5:99999", "a b", "::1", "[::1", ":8000"])
def test_an_address_for_other_machines_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(SettingsError, match=r"^TORCHLOOP_ADDRESS: write it as 10\.0\.0\.5:8000, "):
        from_environment({"TORCHLOOP_ADDRESS": address})
    for good in ("10.0.0.5:8000", "web-1.internal", "[2001:db8::5]:8000", "[::1]"):
        assert from_environment({"TORCHLOOP_ADDRESS": f" {good} "}).address == good


def test_an_address_in_brackets_is_that_address() -> None:
    assert from_environment({"TORCHLOOP_HOST": " [::1] "}).host == "::1"


@pytest.mark.parametrize(
    "environ",
    [
        {"TORCHLOOP_PROT": "1"},
        pytest.param({"TORCHLOOP_DEVICE": "gpu"}, marks=pytest.mark.slow),  # starts a service that asks PyTorch
    ],
)
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


@pytest.mark.slow
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


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "LocalHost", "127.8.8.8"])
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


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
def test_a_worker_needs_no_keys_whatever_address_the_service_listens_on(host: str) -> None:
    environ = {
        "TORCHLOOP_HOST": host,
        "TORCHLOOP_API_KEYS": "train:SECRET",
        "TORCHLOOP_KEY": "SECRET",
        "TORCHLOOP_DATABASE_URL": "postgresql+psycopg://u:PASSWORD@h/d",
        "TORCHLOOP_STORE": "kept",
        "PATH": "/bin",
    }
    worker = for_worker(environ)
    assert "SECRET" not in str(worker)
    assert from_environment(worker).database_url == environ["TORCHLOOP_DATABASE_URL"]
    assert for_training({**environ, "RAY_AUTH_TOKEN": "SECRET"}) == {"TORCHLOOP_STORE": "kept", "PATH": "/bin"}


def test_the_most_that_a_job_may_ask_for_is_read_from_pairs() -> None:
    most = from_environment({"TORCHLOOP_MAX_RESOURCES": " cpus=8, gpus=0.5 "}).max_resources
    assert most is not None
    assert (most.cpus, most.gpus) == (8, 0.5)
    only = from_environment({"TORCHLOOP_MAX_RESOURCES": "cpus=2"}).max_resources
    assert only is not None
    assert (only.cpus, only.gpus) == (2, 0)
