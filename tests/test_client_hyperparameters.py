"""Hyperparameters as options of the commands, and their help page."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from service.client import __main__ as command
from service.client import hyperparameters
from service.client.clients import Client
from tests.fakes import LINE, save_line
from tests.serving import over, serving

SCHEMA = {
    "properties": {
        "epochs": {"type": "integer", "minimum": 1, "maximum": 100, "default": 1, "description": "passes"},
        "lr": {"type": "number", "exclusiveMinimum": 0, "maximum": 10, "default": 0.001},
        "momentum": {"type": "number", "minimum": 0, "exclusiveMaximum": 1, "default": 0.9},
        "shuffle": {"type": "boolean", "default": True, "description": "in each epoch"},
        "optimizer": {"enum": ["sgd", "adam", "a_name_that_is_long"], "default": "adam", "description": "which"},
        "betas": {"type": "array", "maxItems": 2, "prefixItems": [{"type": "number"}] * 2, "default": [0.9, 0.999]},
        "batch_limit": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "default": None},
    }
}


def test_the_help_page_lists_each_hyperparameter_with_bounds_and_default() -> None:
    assert hyperparameters.described("m", SCHEMA).splitlines() == [
        "hyperparameters of m:",
        "  --epochs VALUE        passes; 1 to 100 [1]",
        "  --lr VALUE            above 0, at most 10 [0.001]",
        "  --momentum VALUE      at least 0, below 1 [0.9]",
        "  --[no-]shuffle        in each epoch [on]",
        "  --optimizer {sgd,adam,a_name_that_is_long}",
        "                        which [adam]",
        "  --betas VALUE VALUE   [0.9 0.999]",
        "  --batch-limit VALUE   at least 1 [none]",
    ]
    assert "cannot be trained" in hyperparameters.described("m", None)


@pytest.mark.parametrize("flag", ["--epoch", "--epohcs=3", "--epochs3"])
def test_a_misspelt_hyperparameter_names_the_nearest(flag: str) -> None:
    with pytest.raises(hyperparameters.BadOption, match=r"did you mean --epochs\? known are --epochs --lr"):
        hyperparameters.read("m", SCHEMA, [flag])


@pytest.fixture
def in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}) as app:
        monkeypatch.setattr(command, "Client", partial(Client, transport=over(app)))
        yield


@pytest.mark.parametrize("verb", ["train", "submit"])
@pytest.mark.usefixtures("in_process")
def test_help_after_a_model_lists_its_hyperparameters(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([verb, "line", "--help"], {"TORCHLOOP_URL": "http://localhost"}) == 0
    said = capsys.readouterr().out
    assert f"usage: python -m service.client {verb}" in said
    assert "hyperparameters of line:\n  --epochs VALUE        passes; at least 1 [1]\n" in said
    assert command.main([verb, "nope", "-h"], {"TORCHLOOP_URL": "http://localhost"}) == 1
    assert "unknown model 'nope'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["train", "--help"], ["submit", "-h", "mnist"]])
def test_help_without_a_model_says_how_they_are_listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command.main(words, {})
    assert end.value.code == 0
    assert "name MODEL before --help" in capsys.readouterr().out
