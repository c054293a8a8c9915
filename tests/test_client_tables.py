"""Tables of the commands on wide and narrow terminals, and in pipes."""

import io
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from service.client import tables

ID = "0123456789abcdef0123456789abcdef"
REASON = "validation_accuracy 0.99 is better than the 0.98 of version 11 (p = 0.01)"
QUEUED: dict[str, Any] = {
    "id": ID[::-1], "model": "mnist", "state": "queued", "progress": None, "version": None, "error": None, "gate": None,
    "created_at": "2026-01-31T13:00:00.000Z",
}  # fmt: skip
DONE: dict[str, Any] = {
    "id": ID, "model": "classifier", "state": "succeeded", "progress": {"step": 3, "steps": 3}, "version": 12,
    "error": None, "gate": {"decision": "promoted", "reason": REASON}, "created_at": "2026-01-31T12:00:00.000Z",
}  # fmt: skip
JOBS: Any = [DONE, QUEUED]
METRICS = {"validation_accuracy": 0.991, "validation_nll": 0.0312, "test_accuracy": 0.9921, "test_nll": 0.0277}
VERSIONS: Any = [
    {"version": n, "live": n == 2, "created_at": "2026-01-31T12:00:00.000Z", "metrics": METRICS, "sha256": "ab" * 32}
    for n in (1, 2)
]
CELLS = [*(f"{name} {value:g}" for name, value in METRICS.items()), "2026-01-31 12:00:00", "abababababab"]


class Terminal(io.StringIO):
    """Standard output on a terminal."""

    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, width: int | None, show: Callable[[Any], None], found: Any) -> list[str]:
    """The lines of a table on a terminal of this width; None is a pipe."""
    out = io.StringIO() if width is None else Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width or 80))
    monkeypatch.setattr(sys, "stdout", out)
    show(found)
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()).splitlines()]


@pytest.mark.parametrize("width", [34, 40, 80, 120, 250, None])
def test_the_id_of_a_job_is_whole(monkeypatch: pytest.MonkeyPatch, width: int | None) -> None:
    lines = shown(monkeypatch, width, tables.jobs, JOBS)
    words = [word for line in lines for word in line.split()]
    assert [word for word in words if len(word) == 32] == [ID, ID[::-1]]
    assert width is None or max(map(len, lines)) <= max(width, 36)
    assert "…" not in "".join(lines)
    assert " ".join(words).count("succeeded") == 1


@pytest.mark.parametrize("width", [40, 80, 120, 250, None])
def test_no_figure_of_a_version_is_broken(monkeypatch: pytest.MonkeyPatch, width: int | None) -> None:
    lines = shown(monkeypatch, width, tables.versions, VERSIONS)
    for cell in CELLS:
        assert sum(cell in line for line in lines) == 2, cell
    assert width is None or max(map(len, lines)) <= width


def test_a_narrow_terminal_gets_a_paragraph_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, 80, tables.jobs, JOBS) == [
        f"job {ID}",
        "  model classifier  state succeeded  done 100 %  version 12",
        "  queued 2026-01-31 12:00:00",
        "  outcome promoted, validation_accuracy 0.99 is better than the 0.98 of version",
        "    11 (p = 0.01)",
        f"job {ID[::-1]}",
        "  model mnist  state queued  queued 2026-01-31 13:00:00",
    ]


def test_in_a_pipe_each_row_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    long = DONE | {"error": {"title": "x", "detail": "one\ntwo " * 100}}
    header, *rows = shown(monkeypatch, None, tables.jobs, [long, QUEUED])
    assert header.split() == ["job", "model", "state", "done", "version", "queued", "outcome"]
    assert [row.split()[0] for row in rows] == [ID, ID[::-1]]
    assert rows[0].endswith("one two one two")


def test_data_of_a_recipe_that_nothing_was_trained_on_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    own: Any = {"dataset": "digits@1", "created_at": None, "examples": {"train": 8, "validation": 1, "test": 1}}
    own |= {"rejected": None, "parent": None, "trained": [], "sha256": None}
    assert shown(monkeypatch, None, tables.datasets, [own])[1].split() == ["digits@1", "8", "1", "1", "built", "in"]


def test_a_job_says_how_old_and_new_examples_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"rows": 40, "differ": 9, "candidate_right": 7, "live_right": 2, "gain": 0.125, "p_value": 0.18}
    compared: Any = {**DONE, "gate": {**DONE["gate"], "old_rows": None, "new_rows": part}}
    _, line = shown(monkeypatch, None, tables.job, compared)
    assert line == (
        "new rows: 40 examples, 9 answered differently, the candidate is better on 7, live on 2; gain 0.125, p = 0.18"
    )


def test_nodes_are_listed_with_what_they_have_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    node = {
        "address": "10.0.0.5:8000", "state": "serving", "started_at": "2026-01-31T12:00:00.000Z", "processes": 2,
        "seen_at": "2026-01-31T13:00:00.000Z", "loaded": {"mnist": 3, "regressor": None}, "software": "torchloop 0.1.0",
        "load": {"waiting": 1, "requests_per_s": 20.5},
    }  # fmt: skip
    head, line = shown(monkeypatch, None, tables.nodes, [node])
    assert " ".join(head.split()) == "node state started seen processes waiting per s loaded software"
    words = (
        "10.0.0.5:8000 serving 2026-01-31 12:00:00 2026-01-31 13:00:00 2 1 20.5 mnist 3, regressor none torchloop 0.1.0"
    )
    assert line.split() == words.split()


def test_a_promotion_that_nodes_have_not_followed_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    done = {"model": "mnist", "live": 3, "previous": 2, "waiting_for": ["10.0.0.5:8000", "10.0.0.6:8000"]}
    lines = shown(monkeypatch, None, tables.promoted, done)
    assert lines[0] == "mnist: version 3 is live, version 2 was before"
    assert lines[1].startswith("not yet everywhere: 10.0.0.5:8000, 10.0.0.6:8000 ")
    assert shown(monkeypatch, None, tables.promoted, {**done, "waiting_for": []}) == lines[:1]


def test_an_empty_table_is_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(shown(monkeypatch, None, tables.jobs, [])) == 1
