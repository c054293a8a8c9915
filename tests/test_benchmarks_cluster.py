"""The benchmark of several machines: its aims, and a machine that lacks its programs."""

import pytest

from benchmarks import Options, cluster
from benchmarks import __main__ as command
from benchmarks.balancer import NoHAProxy
from benchmarks.report import Aim


@pytest.mark.parametrize(
    ("aim", "cells"),
    [
        pytest.param(Aim("s", [0.5, 2.0], 2), ["s", "0.5 to 2", "at most 2", "yes"], id="met"),
        pytest.param(Aim("s", [0.5, 2.01], 2), ["s", "0.5 to 2.01", "at most 2", "no"], id="missed"),
        pytest.param(Aim("x", [0.5], 0.55, at_least=True), ["x", "0.5", "at least 0.55", "no"], id="too-small"),
        pytest.param(Aim("s", [7.0]), ["s", "7"], id="no-aim"),
    ],
)
def test_a_measurement_is_compared_with_its_aim(aim: Aim, cells: list[str]) -> None:
    assert aim.cells() == cells


def test_without_haproxy_the_benchmark_is_skipped_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise NoHAProxy("there is no haproxy")

    monkeypatch.setattr(cluster, "binary", missing)
    assert cluster.main(Options()) == "  skipped: there is no haproxy"


def test_the_whole_is_asked_for_by_an_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster, "main", lambda options: f"  {options.whole}")
    command.main(["cluster", "--whole"])
    assert capsys.readouterr().out == "cluster\n  True\n\n"
