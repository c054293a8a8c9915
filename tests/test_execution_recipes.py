"""Recipes are read from a subprocess once, then from the cache in the store."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from service.errors import Invalid
from service.execution.recipes import RecipeSchema, complete_config, read_recipes


@pytest.mark.slow  # imports torch in a process of its own
def test_recipes_are_asked_for_once(tmp_path: Path) -> None:
    first = asyncio.run(read_recipes(tmp_path))
    assert {"regressor", "classifier", "mnist"} <= first.keys()

    async def never() -> bytes:
        raise AssertionError("asked again")

    assert asyncio.run(read_recipes(tmp_path, never)) == first


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"mnist": 3}', b'{"mnist": {"metric": 1}}'])
def test_a_damaged_cache_of_recipes_is_replaced(
    content: bytes,
    tmp_path: Path,
) -> None:
    fields = b'"hyperparameters": {}, "metric": "mse", "higher_is_better": false, "target": null, "built_in": {}'
    answer = b'{"line": {%s}}' % fields

    async def asked() -> bytes:
        return answer

    asyncio.run(read_recipes(tmp_path, asked))
    (kept,) = (tmp_path / "recipes").iterdir()
    kept.write_bytes(content)
    assert asyncio.run(read_recipes(tmp_path, asked)).keys() == {"line"}
    assert kept.read_bytes() == answer


def test_recipes_are_not_cached_without_an_answer_or_a_writable_store(
    tmp_path: Path,
) -> None:
    answers = [b"", b"{}"]

    async def asked() -> bytes:
        return answers.pop(0)

    assert asyncio.run(read_recipes(tmp_path, asked)) == {}
    assert not (tmp_path / "recipes").exists()
    (tmp_path / "recipes").touch()  # a file where the folder should be
    assert asyncio.run(read_recipes(tmp_path, asked)) == {}


# Hyperparameters without bounds, as a recipe of a user may have them.
FREE = RecipeSchema(
    hyperparameters={
        "properties": {
            "lr": {"type": "number", "default": 0.1},
            "hidden": {"type": "integer", "default": 3},
            "name": {"type": "string", "default": ""},
            "betas": {"type": "array", "items": {"type": "number"}, "default": []},
            "options": {"default": None},
        }
    },
    metric="mse",
    higher_is_better=False,
)
NAN, INFINITY = float("nan"), float("inf")
UNSTORABLE: list[tuple[str, Any, str]] = [
    *[(name, value, f"{name}: {value} is not a finite number")
      for name in ("lr", "hidden", "name", "betas", "options") for value in (NAN, INFINITY, -INFINITY)],
    *[("betas", [0.5, value], "betas: .* is not a finite number") for value in (NAN, INFINITY)],
    ("options", {"a": [{"b": NAN}]}, "options: nan is not"),
    *[(name, sign * 10**400, f"{name}: a whole number") for name in ("lr", "hidden") for sign in (1, -1)],
    ("hidden", 2**63, "64 bits"),
    ("lr", True, "lr: True is not of type 'number'"),
    ("hidden", True, "hidden: True is not of type 'integer'"),
    ("betas", [True], "betas: True is not of type 'number'"),
    ("name", "\ud800", "name: the text has a lone surrogate"),
    ("options", {"\udfff": 1}, "options: the text has a lone surrogate"),
    ("\ud800", 1, r"\\ud800: unknown hyperparameter"),
    ("options", [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]], "options: too many levels"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "words"), UNSTORABLE, ids=lambda value: ascii(value)[:30])
def test_a_value_that_json_or_the_database_does_not_have_is_refused(name: str, value: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        complete_config("line", {"line": FREE}, {name: value})


@pytest.mark.parametrize("config", [{"lr": 1e308}, {"hidden": 2**63 - 1}, {"name": "\U0001f600"}, {"betas": [0, 0.5]}])
def test_other_values_are_kept_as_they_are(config: dict[str, Any]) -> None:
    complete = complete_config("line", {"line": FREE}, config)
    assert {name: complete[name] for name in config} == config
