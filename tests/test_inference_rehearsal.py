"""The whole path is tried before a version goes live: nothing changes if one step is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from torch import Tensor, nn
from typing_extensions import TypedDict

from models.contract import fault_of
from models.errors import CheckpointError
from models.spec import ModelSpec
from service.check import CHECKS
from service.inference.rehearsal import rehearse
from tests.fakes import LINE, Line, save_line
from tests.problems import is_problem
from tests.serving import line_recipes, serving


class Numbered(TypedDict):
    """A prediction with a list."""

    value: float
    values: list[float]


def with_values(rows: Any) -> list[Any]:
    return [{"value": row[0], "values": row} for row in rows]


def of(**changes: Any) -> ModelSpec:
    return ModelSpec(**{**vars(LINE), **changes})


def run(samples: Any) -> Any:
    with torch.inference_mode():
        return Line()(torch.from_numpy(samples)).numpy()


def raising(_: Any) -> Any:
    raise KeyError("/home/someone/labels.txt")


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"preprocess": raising}, "preprocess raised KeyError in tests/test_inference_rehearsal.py, line"),
    ({"preprocess": lambda rows: rows[:1]}, r"preprocess returns float32 \(1, 1\) for a batch of 3"),
    ({"preprocess": lambda rows: rows.tolist()}, "preprocess returns list, not an array"),
    ({"postprocess": raising}, "postprocess raised KeyError"),
    ({"postprocess": lambda rows: rows[:, 0]}, r"postprocess returns float32 \(1,\); it must return float32 \(N, k\)"),
    ({"postprocess": lambda rows: rows.astype(float)}, r"postprocess returns float64 \(1, 1\); it must"),
    ({"postprocess": lambda rows: rows[:1]}, r"postprocess returns float32 \(1, 1\) for a batch of 3"),
    ({"postprocess": lambda rows: rows.reshape(1, -1).repeat(len(rows), 0)}, "postprocess returns 1 and 3 values"),
    ({"postprocess": lambda rows: rows * np.float32("nan")}, "the answer to the example is NaN or infinity"),
    ({"describe": raising}, r"describe raised KeyError in tests/test_inference_rehearsal.py, line \d+: 'labels.txt'"),
    ({"describe": lambda rows: [{"value": row[3]} for row in rows]}, "describe raised IndexError"),
    ({"describe": lambda rows: [{"value": rows[0, 0]}]}, "describe returns 1 predictions for 3 samples"),
    ({"describe": lambda _: []}, "describe returns 0 predictions for 1 samples"),
    ({"describe": lambda rows: [row[0] for row in rows]}, "describe returns float32 for a sample; it must be a dict"),
    ({"describe": lambda rows: [{"value": {1, 2}} for _ in rows]}, "JSON cannot hold the predictions of describe"),
    ({"describe": lambda rows: [{"value": 1j} for _ in rows]}, "JSON cannot hold the predictions of describe"),
    ({"describe": lambda rows: [{"value": float("nan")} for _ in rows]}, "does not return Value: value: Input should"),
    (
        {"describe": lambda rows: [{"value": "3"} for _ in rows]},
        "does not return Value: value: Input should be a valid nu",
    ),
    (
        {"describe": lambda rows: [{"value": True} for _ in rows]},
        "does not return Value: value: Input should be a valid",
    ),
    ({"describe": lambda rows: [{"label": 3} for _ in rows]}, "does not return Value: value: Field required"),
    ({"describe": lambda rows: [{"value": 1.0, "labl": 3} for _ in rows]}, "Value has no labl, which describe returns"),
]
IDS = [f"{next(iter(changes))}-{at}" for at, (changes, _) in enumerate(FAULTS)]


def test_a_path_without_fault_passes() -> None:
    rehearse("line", LINE, run)
    rehearse("line", of(describe=with_values, prediction=Numbered), run)


class Counted(TypedDict):
    """A prediction with a whole number."""

    count: int


def test_a_whole_number_is_an_integer_whatever_its_type() -> None:
    rehearse("line", of(describe=lambda rows: [{"count": row[0].round()} for row in rows], prediction=Counted), run)
    with pytest.raises(CheckpointError, match="does not return Counted: count: Input should be a valid integer"):
        rehearse("line", of(describe=lambda rows: [{"count": row[0] + 0.5} for row in rows], prediction=Counted), run)


class Noted(TypedDict):
    """A prediction with a field that may be absent."""

    value: float
    note: NotRequired[str]


def test_a_field_that_is_not_required_may_be_absent() -> None:
    rehearse("line", of(prediction=Noted), run)
    assert all(not fault_of(check, "line", of(prediction=Noted)) for check in CHECKS)


@pytest.mark.parametrize(("changes", "words"), FAULTS, ids=IDS)
def test_a_step_that_fails_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as raised:
        rehearse("line", of(**changes), run)
    assert str(raised.value).startswith("line fails on the example of models/line.py: ")
    assert "/home" not in str(raised.value)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda samples: samples[:1], r"the network returns float32 \(1, 1\) for a batch of 3"),
        (lambda samples: (samples, samples), "the network returns tuple, not an array"),
        (raising, "the network raised KeyError"),
    ],
    ids=["rows", "tuple", "raises"],
)
def test_a_network_that_answers_wrongly_is_named(network: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        rehearse("line", LINE, network)


class Moved(nn.Module):
    """Answers as Line does, until its slope is negative: then one sample stands for all."""

    def __init__(self, *, slope: float = 2.0, offset: float = 1.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([slope]))
        self.offset = nn.Parameter(torch.tensor([offset]))

    def forward(self, samples: Tensor) -> Tensor:
        outputs = samples * self.slope + self.offset
        return outputs if self.slope.item() > 0 else outputs[:1]


def promoted(client: TestClient, version: int) -> Any:
    return client.post("/models/line/promote", json={"version": version})


def picky(rows: Any) -> list[Any]:
    """Fails on negative values."""
    return [{"value": [row[0]][0 if row[0] > 0 else 1]} for row in rows]


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"network": Moved}, "for a batch of 3"), ({"describe": picky}, "describe raised IndexError in tests/")],
    ids=["one answer for three samples", "describe raises"],
)
def test_a_promotion_that_fails_on_the_way_is_409_and_changes_nothing(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = save_line(tmp_path / "first")
    other = save_line(tmp_path / "second", slope=-2.0)
    with serving(path.parent, {"line": of(**changes)}, line_recipes, backend="eager") as client:
        added = client.post("/models/line/versions", content=other.read_bytes())
        assert (added.status_code, added.json()["version"]) == (201, 2)
        refused = promoted(client, 2)
        assert is_problem(refused, 409, words)
        assert "version 2 of line cannot be loaded, nothing was changed" in refused.json()["detail"]
        assert client.get("/models/line").json()["live"] == 1
        assert client.post("/predict/line", json={"inputs": [[1], [2]]}).json()["predictions"] == [
            {"value": 3},
            {"value": 5},
        ]
        assert len(client.get("/models/line/promotions").json()["promotions"]) == 1


def test_a_path_that_fails_at_the_start_is_a_fault_of_the_model(tmp_path: Path) -> None:
    save_line(tmp_path)
    save_line(tmp_path, "good")
    specs = {"line": of(describe=raising), "good": LINE}
    with serving(tmp_path, specs, line_recipes, backend="eager") as client:
        fault = client.get("/models/line").json()["fault"]
        assert fault.startswith("line fails on the example of models/line.py: describe raised KeyError")
        assert client.get("/health/ready").json()["reasons"] == {"line": fault}
        assert is_problem(client.post("/predict/line", json={"inputs": [[1]]}), 503)
        assert client.post("/predict/good", json={"inputs": [[1]]}).status_code == 200
