"""What can be trained is asked of a process once, and then read from the store."""

import asyncio
from pathlib import Path

import pytest

from service.execution.recipes import read_recipes


def test_recipes_are_asked_for_once(tmp_path: Path) -> None:
    first = asyncio.run(read_recipes(tmp_path))
    assert {"regressor", "classifier", "mnist"} <= first.keys()

    async def never() -> bytes:
        raise AssertionError("asked again")

    assert asyncio.run(read_recipes(tmp_path, never)) == first


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"mnist": 3}', b'{"mnist": {"metric": 1}}'])
def test_what_is_kept_but_damaged_is_asked_for_again(
    content: bytes,
    tmp_path: Path,
) -> None:
    answer = b'{"line": {"hyperparameters": {}, "metric": "mse", "higher_is_better": false}}'

    async def asked() -> bytes:
        return answer

    asyncio.run(read_recipes(tmp_path, asked))
    (kept,) = (tmp_path / "recipes").iterdir()
    kept.write_bytes(content)
    assert asyncio.run(read_recipes(tmp_path, asked)).keys() == {"line"}
    assert kept.read_bytes() == answer


def test_where_training_cannot_be_asked_nothing_is_kept_and_a_full_store_stops_nobody(
    tmp_path: Path,
) -> None:
    answers = [b"", b"{}"]

    async def asked() -> bytes:
        return answers.pop(0)

    assert asyncio.run(read_recipes(tmp_path, asked)) == {}
    assert not (tmp_path / "recipes").exists()
    (tmp_path / "recipes").touch()  # a file where the folder should be
    assert asyncio.run(read_recipes(tmp_path, asked)) == {}
