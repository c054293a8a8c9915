"""torchloop cluster: what it refuses before it starts anything."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from service import cluster
from service.settings import SettingsError

SECURE = {"RAY_AUTH_MODE": "token"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray, or something of its name."""
    monkeypatch.setattr(cluster, "find_spec", lambda name: name)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("environ", [{}, {"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": ""}])
def test_s10_a_cluster_without_tokens_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"Export RAY_AUTH_MODE=token .*`ray get-auth-token --generate`"):
        cluster.checked(environ)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None if name == "ray" else find_spec(name))
    with pytest.raises(SettingsError, match=r'^Ray is not installed here: pip install "torchloop\[ray\]"$'):
        cluster.checked(SECURE)


@pytest.mark.usefixtures("installed")
def test_the_settings_are_checked_before_the_start(tmp_path: Path) -> None:
    assert cluster.checked({**SECURE, "TORCHLOOP_STORE": str(tmp_path)}).store == tmp_path
    with pytest.raises(SettingsError, match="TORCHLOOP_DATABASE_URL"):
        cluster.checked({**SECURE, "TORCHLOOP_DATABASE_URL": "mysql://x"})


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--cpus", "many"], 2, "torchloop: argument --cpus: many is not a number from 0 to 4096"),
        (["--gpus", "-1"], 2, "--gpus"),
        (["--web-gpus", "1.5"], 2, "argument --web-gpus: 1.5 is more than one GPU, and no whole number of them"),
        (["--gpus", "0.001"], 2, "argument --gpus: 0.001 is less than 0.01, and not 0"),
        (["--web-cpus", "0.001"], 2, "argument --web-cpus: 0.001 is less than 0.01, and not 0"),
        (["--lease-s", "0"], 2, "argument --lease-s: 0 is not a number from 1 to 4096"),
        (["--lease-s", "nan"], 2, "argument --lease-s: nan is not a number from 1 to 4096"),
        (["--address", "head"], 2, "argument --address: head is no address of a head: write it as 10.0.0.1:6379"),
        (["--address", "ray://head:10001"], 2, "argument --address"),
        (["--address", "[2001:db8::5]:6379"], 2, "torchloop: RAY_AUTH_MODE is not token: "),
        (["--port", "1"], 2, "unrecognized arguments: --port 1"),
        (["--help"], 0, "usage: torchloop cluster"),
        ([], 2, "torchloop: RAY_AUTH_MODE is not token: "),
    ],
)
def test_options_are_checked_and_a_refusal_is_one_line(
    words: list[str],
    status: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    installed: None,
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    try:
        ended = cluster.main(words, prog="torchloop cluster")
    except SystemExit as end:
        ended = int(end.code or 0)
    out, err = capsys.readouterr()
    assert ended == status
    assert told in out + err
    assert err.count("\n") == (1 if status else 0)
