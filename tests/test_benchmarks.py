"""Discovery of benchmarks, the command, and skipped measurements."""

import math
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from benchmarks import Options, epoch, flame, loop, neighbours, openloop, trials
from benchmarks import __main__ as command
from benchmarks.loop import Answer, Change, Window
from tests.fakes import ROOT
from training.torchvision_shim import import_torchvision


def test_an_unknown_benchmark_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["epoch", "teatime"])
    assert ended.value.code == 2
    assert "no benchmark teatime; there are cancel, capture, cluster, database, drift, epoch" in capsys.readouterr().err


def test_every_benchmark_that_is_offered_takes_the_options() -> None:
    for name in command.discover(ROOT / "benchmarks"):
        assert list(signature(import_module(f"benchmarks.{name}").main).parameters) == ["options"], name


def test_a_named_benchmark_prints_its_table(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epoch, "main", lambda options: f"  {options.data.name} {options.rounds} {options.seconds}")
    command.main(["epoch", "--rounds", "2", "--data", str(tmp_path / "folder")])
    assert capsys.readouterr().out == "epoch\n  folder 2 4\n\n"


def test_without_the_files_the_epoch_is_skipped_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_torchvision("torchvision.datasets").MNIST, "mirrors", [])
    assert epoch.main(Options(data=tmp_path, rounds=1)).startswith("  skipped: the MNIST files are not readable")


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.2, 1), (0.21, 2), (0.5, 3), (0.99, 5), (1.0, 5)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(share: float, value: float) -> None:
    assert loop.percentile([5, 3, 1, 4, 2], share) == value


def test_of_no_values_there_is_no_percentile() -> None:
    assert math.isnan(loop.percentile([], 0.99))


def test_a_request_is_in_a_window_if_any_moment_of_it_is() -> None:
    before, into, inside, around, after = (Answer(*span, 1) for span in [(0, 9), (9, 10), (11, 12), (8, 22), (21, 22)])
    assert loop.within([before, into, inside, around, after], [Window(10, 20)]) == [into, inside, around]
    assert loop.within([before, after], [Window(10, 20), Window(22, 30)]) == [after]
    assert loop.within([before], []) == []


LIVES = [Change(1, -math.inf, -math.inf), Change(2, 10, 11), Change(1, 20, 21), Change(3, 30, 32)]


@pytest.mark.parametrize(
    ("began", "ended", "versions"),
    [
        (5.0, 9.0, {1}),
        (9.0, 9.9, {1}),
        (9.5, 10.5, {1, 2}),  # version 2 is about to be live
        (10.2, 10.4, {1, 2}),  # in the middle of the change either may answer
        (11.5, 12.0, {2}),  # it was told that version 2 is live
        (10.5, 31.0, {1, 2, 3}),
        (21.5, 22.0, {1}),  # rolled back
        (31.5, 40.0, {1, 3}),
        (40.0, 41.0, {3}),
    ],
)
def test_an_answer_is_stale_unless_its_version_was_live_during_its_request(
    began: float,
    ended: float,
    versions: set[int],
) -> None:
    answers = [Answer(began, ended, version) for version in (1, 2, 3, 4)]
    assert {answer.version for answer in answers} - {
        answer.version for answer in loop.stale(answers, LIVES)
    } == versions


def test_a_failed_request_is_counted_as_failed_and_not_as_stale() -> None:
    assert loop.stale([Answer(0, 1, 0, "503")], LIVES) == []


def test_a_flame_graph_names_what_it_shows_and_no_path_of_the_machine() -> None:
    named = flame.titled('<svg><text id="title" x="1">/somewhere/bin/py-spy record</text><text>/predict</text></svg>')
    assert named == (
        '<svg><text id="title" x="1">one web process, 64 connections, POST of a 28x28 PNG</text>'
        "<text>/predict</text></svg>"
    )


def test_the_tables_of_trials_compare_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LARGE", "_TRIALS"):
        monkeypatch.setattr(trials, name, 40)
    text = trials.main(Options())
    assert text.count("\n\n") == 3
    assert all(words in text for words in ("evidence, alpha 0.01", "counting keys", "a point worse", "40 whole trials"))


def test_the_table_of_neighbours_says_whether_the_aim_is_met() -> None:
    def answers(*milliseconds: float) -> list[openloop.Answer]:
        return [openloop.Answer(0.0, one / 1000, 200) for one in milliseconds]

    quick = neighbours.Round(alone=answers(1, 2), beside=answers(3, 40), batches=[2.0])
    slow = neighbours.Round(alone=answers(1, 2), beside=[*answers(3, 60), openloop.Answer(0.0, 0.06, 503)], batches=[4])
    assert "p99 at most 50 ms     40.0  yes" in neighbours.table_of([quick], 200)
    text = neighbours.table_of([slow], 200)
    assert "p99 at most 50 ms     60.0  no" in text
    assert "a batch of 60 takes 4.00 s; the web process has 200 MB afterwards" in text
    assert "mnist beside 60    60.0    60.0        60.0            1" in text


def test_the_aims_of_the_epoch_compare_medians() -> None:
    taken = {
        "classic": [epoch.Epoch(18.0, 0.98), epoch.Epoch(20.0, 0.98)],
        "torchloop": [epoch.Epoch(4.0, 0.99), epoch.Epoch(4.4, 0.97)],
    }
    rows = [line.split()[-4:] for line in epoch._aims(taken).splitlines()[1:]]
    assert rows == [
        ["4.2", "at", "most", "4.5", "yes"][-4:],
        ["at", "least", "4", "yes"],
        ["at", "least", "0", "yes"],
    ]
