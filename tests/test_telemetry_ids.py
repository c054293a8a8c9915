"""Ids of predictions."""

import os

import pytest

from service.store.tables import captures, feedback, trial_differences
from service.telemetry.ids import Stems, begun_at, next_stem, prediction_id, version_of

NOON_NS = 1_800_000_000_123_456_789


def test_an_id_says_when_it_began_and_which_version_answered() -> None:
    found = prediction_id(Stems(lambda: NOON_NS).next(), 12)
    assert (begun_at(found), version_of(found)) == (1_800_000_000.123, 12)


def test_stems_differ_within_a_process_and_between_processes() -> None:
    one, other = Stems(lambda: NOON_NS), Stems(lambda: NOON_NS)
    assert len({stems.next() for stems in (one, other) for _ in range(1000)}) == 2000


def test_a_forked_process_has_stems_of_its_own() -> None:
    reading, writing = os.pipe()
    before = next_stem()
    if (child := os.fork()) == 0:
        os.write(writing, next_stem().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100).decode().split("-")[1] != before.split("-")[1]
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    "text",
    ["", "3", "x-y-z-1", "0199d2c4f1a-5f3a9c1d-2b-0", "0199d2c4f1a-5f3a9c1d-2b-4\n", "0199D2C4F1A-5f3a9c1d-2b-4"],
)
def test_other_texts_have_no_version(text: str) -> None:
    assert version_of(text) is None


def test_the_longest_id_fits() -> None:
    longest = f"{'f' * 11}-{'f' * 8}-{'f' * 12}-{9_999_999_999}"
    assert version_of(longest) == 9_999_999_999
    assert len(longest) == 11 + 8 + 12 + 10 + 3
    columns = [captures.c.id, feedback.c.id, trial_differences.c.prediction]
    assert all(len(longest) <= getattr(column.type, "length", 0) for column in columns)
