"""One broken file is one model's fault: it is named, and every other model serves and is trained."""

import asyncio
import json
import sys
import typing
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn
from typing_extensions import TypedDict

import models
from models import catalog
from models.catalog import Specs
from models.errors import in_one_line
from models.project import Project
from models.spec import Entry, ModelSpec
from service.client import tables
from service.execution.recipes import RecipeSchema, read_recipes
from service.settings import Settings
from tests.fakes import LINE, save_line
from tests.problems import is_problem
from tests.serving import LINE_RECIPE, serving
from training import metrics
from training.recipe import Recipe, Split, TrainingError, recipes
from training.run import run

FAULT = "models/broken.py: line 3: TypeError: ModelSpec.__init__() got an unexpected keyword argument 'postproces'"
RECIPE_FAULT = "training/line.py: line 9: ValueError: the metric 'acuracy' is not among the figures"
SPECS = Specs({"line": LINE}, {"broken": FAULT})


async def known_recipes() -> Mapping[str, RecipeSchema]:
    return {"line": LINE_RECIPE}


async def faulty_recipes() -> Mapping[str, RecipeSchema]:
    return {"line": RecipeSchema(fault=RECIPE_FAULT)}


def test_a_model_whose_file_cannot_be_used_is_listed_with_its_fault_and_the_others_serve(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, SPECS, known_recipes) as client:
        good, broken = client.get("/models").json()["models"]
        assert (good["name"], good["fault"]) == ("line", None)
        assert broken == client.get("/models/broken").json()
        assert (broken["name"], broken["fault"], broken["media_types"]) == ("broken", FAULT, [])
        assert (broken["loading"], broken["unloaded"], broken["shortened"]) == (False, False, False)
        rest = broken.keys() - {"name", "fault", "device", "media_types", "summary", "loading", "unloaded", "shortened"}
        assert {broken[field] for field in rest} == {None}
        assert broken.keys() == good.keys()
        assert client.get("/health/ready").status_code == 200
        assert client.post("/predict/line", json={"inputs": [[1]]}).status_code == 200
        assert client.post("/train", json={"model": "line"}).status_code == 202
        index = client.post("/v2/repository/index", json={}).json()
        assert {"name": "broken", "state": "UNAVAILABLE", "reason": FAULT} in index
        assert "/predict/broken" not in client.get("/openapi.json").json()["paths"]


@pytest.mark.many
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/predict/broken", {"inputs": [[1]]}),
        ("POST", "/explain/broken", {"inputs": [[1]]}),
        ("POST", "/preview/broken", {"inputs": [[1]]}),
        ("POST", "/train", {"model": "broken"}),
        ("POST", "/models/broken/promote", {"version": 1}),
        ("POST", "/models/broken/versions", {}),
        ("GET", "/models/broken/versions", None),
    ],
)
def test_every_request_for_a_faulty_model_is_503_and_names_its_file(
    method: str, path: str, body: Any, tmp_path: Path
) -> None:
    with serving(tmp_path, SPECS, known_recipes) as client:
        answer = client.request(method, path, json=body)
    assert is_problem(answer, 503, "broken cannot serve until its file is corrected and the service restarted: models/")
    assert "recipe" not in answer.text


def test_a_faulty_recipe_is_named_and_its_model_serves(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE}, faulty_recipes) as client:
        found = client.get("/models/line").json()
        assert (found["fault"], found["hyperparameters"], found["metric"]) == (RECIPE_FAULT, None, None)
        assert client.post("/predict/line", json={"inputs": [[1]]}).status_code == 200
        assert client.get("/health/ready").status_code == 200
        refused = client.post("/train", json={"model": "line"})
        assert is_problem(refused, 422, "line cannot be trained until this is corrected: training/line.py: line 9")
        assert client.post("/models/line/versions", content=(tmp_path / "line.pt").read_bytes()).status_code == 201


def test_a_faulty_recipe_is_logged_and_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def asked() -> bytes:
        return json.dumps({"line": {"fault": RECIPE_FAULT}}).encode()

    found = asyncio.run(read_recipes(Settings(store=tmp_path).store, asked))
    assert found["line"].fault == RECIPE_FAULT
    assert f"left aside: {RECIPE_FAULT}" in caplog.messages
    assert not (tmp_path / "recipes").exists()


@pytest.mark.parametrize("output", [b"hello", b'{"line": 5}', b"[]", b'{"line": {}}'])
def test_recipes_that_cannot_be_read_leave_the_models_serving(output: bytes, tmp_path: Path) -> None:
    async def ask() -> bytes:
        return output

    assert asyncio.run(read_recipes(tmp_path, ask)) == {}


def test_the_clients_table_shows_the_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path, SPECS, known_recipes) as client:
        tables.models(client.get("/models").json()["models"])
    assert "models/broken.py: line 3: TypeError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (np.zeros((2, 3), np.float32), r"it has shape \(2, 3\); entry asks for \(N, 1\), N at least 1"),
        (np.zeros((0, 1), np.float32), r"it has shape \(0, 1\); entry asks for"),
        (np.zeros((), np.float32), r"it has shape \(\); entry asks for"),
        ([[0.5]], r"it is a list: write np.array"),
        (np.zeros((2, 1)), "it has dtype float64; entry asks for float32"),
        (np.full((2, 1), 7, np.float32), "not between 0 and 5, the bounds of entry"),
        (np.full((2, 1), np.nan, np.float32), "a number is not finite"),
    ],
    ids=["shape", "empty", "scalar", "list", "dtype", "bounds", "nan"],
)
def test_an_example_that_does_not_fit_its_own_entry_is_refused_where_it_is_written(example: Any, reason: str) -> None:
    entry = Entry(shape=(1,), dtype=np.dtype(np.float32), low=0, high=5)
    with pytest.raises(ValueError, match=f"^example: .*{reason}"):
        replace(LINE, entry=entry, example=example)


@pytest.mark.parametrize(
    ("field", "value"),
    [("summary", 5), ("summary", "\ud800"), ("summary", "two\nlines"), ("prediction", dict), ("prediction", "Value")],
)
def test_a_field_of_another_kind_is_refused_where_it_is_written(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^`{field}` is not a"):
        replace(LINE, **{field: value})


class OfTyping(typing.TypedDict):
    value: float


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic reads those of newer Pythons")
def test_a_typed_dict_that_has_no_schema_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="not a TypedDict of typing_extensions"):
        replace(LINE, prediction=OfTyping)


class Unwritable(TypedDict):
    value: catalog.Found[Any]


def test_a_prediction_without_a_schema_takes_no_other_model_down(tmp_path: Path) -> None:
    save_line(tmp_path)
    with serving(tmp_path, {"line": LINE, "odd": replace(LINE, prediction=Unwritable)}, known_recipes) as client:
        assert client.get("/openapi.json").status_code == 200
        assert [model["name"] for model in client.get("/models").json()["models"]] == ["line", "odd"]


def test_a_dtype_may_be_written_as_text() -> None:
    assert Entry(shape=(1,), dtype="float32").dtype == np.dtype(np.float32)  # type: ignore[arg-type]


GOOD = "from tests.fakes import LINE\nfrom models.spec import *\nfrom dataclasses import replace\n"
SOURCES = [
    ("import nosuchmodule\nSPEC = 1\n", "models/broken.py: line 1: ModuleNotFoundError"),
    (f"{GOOD}SPEC = replace(LINE, example=LINE.example[0])\n", "models/broken.py: line 4: ValueError: example: it has"),
    (
        f'{GOOD}SPEC = replace(LINE, network=by_name("models.networks:Perceptorn"))\n',
        'models/broken.py: line 4: by_name("models.networks:Perceptorn"): there is no Perceptorn in '
        "models.networks; it has MnistCNN, Perceptron",
    ),
    (
        "from models.spec import ModelSpec\nSPECK = ModelSpec(summary='')\n",
        "models/broken.py: line 2: SPECK = ModelSpec(...) is not found: name it SPEC",
    ),
    (
        "from models.spec import ModelSpec  # the SPEC\nSPECK: ModelSpec = ModelSpec(summary='')\n",
        "models/broken.py: line 2: ",
    ),
]


@pytest.mark.parametrize(("source", "fault"), SOURCES, ids=["import", "example", "by_name", "SPECK", "comment"])
def test_a_faulty_file_of_models_is_logged_with_its_line_and_leaves_the_others(
    source: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "broken.py").write_text(source)
    monkeypatch.setattr(models, "__path__", models.__path__)  # restored at the end
    monkeypatch.setitem(sys.modules, "models.broken", None)  # restored at the end: what this test imports is dropped
    monkeypatch.delitem(sys.modules, "models.broken")
    found = catalog.specs(Project(tmp_path))
    assert {"classifier", "mnist", "regressor"} <= found.keys()
    assert found.faults.keys() == {"broken"}
    assert found.faults["broken"].startswith(fault)
    assert [message for message in caplog.messages if message.startswith(f"left aside: {fault}")]


def test_an_error_of_a_file_names_no_folder(tmp_path: Path) -> None:
    assert in_one_line(FileNotFoundError(2, "No such file", "/home/someone/words.txt")) == (
        "[Errno 2] No such file: 'words.txt'"
    )
    assert in_one_line(ValueError("\n\nat 3/4 of samples/s\nmore")) == "at 3/4 of samples/s"
    assert in_one_line(KeyError()) == "KeyError"


REGRESSOR: Recipe[Any] = recipes()["regressor"]


def own_figures(network: nn.Module, split: Split) -> dict[str, float]:
    return {"rmse": 1.0, "bias": float(len(split))}


def test_a_wrong_metric_of_a_known_evaluate_is_refused_where_the_recipe_is_written() -> None:
    words = "the metric 'acuracy' is not among the figures of evaluate: accuracy, calibration_error, loss"
    with pytest.raises(ValueError, match=words):
        replace(recipes()["classifier"], metric="acuracy")
    assert replace(REGRESSOR, metric="rmse", evaluate=own_figures).metric == "rmse"


@pytest.mark.parametrize("evaluate", [own_figures, metrics.regression])
def test_a_wrong_metric_stops_a_run_before_it_trains(evaluate: Any, tmp_path: Path) -> None:
    def fit(*_: object) -> None:
        pytest.fail("it trains")

    recipe = replace(REGRESSOR, evaluate=own_figures, metric="mse", fit=fit)
    object.__setattr__(recipe, "evaluate", evaluate)
    if evaluate is metrics.regression:
        object.__setattr__(recipe, "metric", "rmse")
    options: dict[str, Any] = {"data": tmp_path, "folder": tmp_path, "report": lambda _: None, "command": ""}
    with pytest.raises(TrainingError, match=r"^training/regressor\.py: the metric '\w+' is not among the figures of"):
        run("regressor", recipe, recipe.config(epochs=1), **options)
    assert not list(tmp_path.iterdir())


def test_an_evaluate_that_needs_more_samples_than_the_first_ones_is_left_to_the_end(tmp_path: Path) -> None:
    calls: list[int] = []

    def picky(network: nn.Module, split: Split) -> dict[str, float]:
        calls.append(len(split))
        if len(calls) == 1:
            raise ZeroDivisionError
        return metrics.regression(network, split)

    recipe = replace(REGRESSOR, evaluate=picky)
    options: dict[str, Any] = {"data": tmp_path, "folder": tmp_path, "report": lambda _: None, "command": ""}
    outcome = run("regressor", recipe, recipe.config(epochs=1), **options)
    assert outcome.record.metrics.keys() >= {"mse", "validation_mse"}


def test_a_spec_is_still_a_spec() -> None:
    assert isinstance(SPECS["line"], ModelSpec)
    assert list(SPECS) == ["line"]
