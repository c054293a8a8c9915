"""Flags of every type that a recipe's Config may have."""

import argparse
from enum import Enum
from typing import Literal

import pytest
from pydantic import Field

from training.flags import add_flags, command_line, read_config
from training.recipe import Hyperparameters


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Config(Hyperparameters):
    """One field of each type; some without a description."""

    column: str = Field("label", min_length=1, description="name of a column")
    note: str | None = None
    size: Size = Size.SMALL
    depth: Literal[2, 3] = 2
    widths: list[int] = Field(default_factory=lambda: [8, 8], description="widths of the layers")
    rate: float = 0.5
    wide: bool = False


class Required(Hyperparameters):
    """A field without a default."""

    column: str


def parsed(*words: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_flags(parser.add_argument_group(), Config)
    return vars(parser.parse_args(words))


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--column", "my label"], "column", "my label"),
        (["--note", "50% of it"], "note", "50% of it"),
        (["--size", "large"], "size", Size.LARGE),
        (["--depth", "3"], "depth", 3),
        (["--widths", "4", "5", "6"], "widths", [4, 5, 6]),
        (["--rate", "0.25"], "rate", 0.25),
        (["--wide"], "wide", True),
    ],
    ids=str,
)
def test_a_flag_reads_a_value_of_its_type(words: list[str], field: str, value: object) -> None:
    assert getattr(read_config(Config, parsed(*words)), field) == value


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--column", ""], "must be a text of length >= 1"),
        (["--size", "huge"], "must be one of small, large"),
        (["--widths", "4", "many"], "must be any number of values, each an integer"),
        (["--rate", "fast"], "must be a number"),
    ],
    ids=str,
)
def test_a_bad_value_names_what_is_allowed(words: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_config(Config, parsed(*words))


def test_the_help_names_each_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "name of a column (default label): a text of length >= 1" in text
    assert "widths of the layers (default 8 8)" in text
    assert "(default none)" in text


def test_a_field_without_a_default_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser.add_argument_group(), Required)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "(required): a text" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ValueError, match="--column is required: give a text"):
        read_config(Required, {})


def test_the_command_of_a_run_keeps_a_text_with_spaces_in_one_word() -> None:
    assert command_line("x", Config(column="my label")) == "python -m training x --column 'my label'"
