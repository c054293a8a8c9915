"""A fourth model is two new files and no changed one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx

from tests.fakes import ROOT, running_server

MODEL = """
from functools import partial

import numpy as np

from models.outputs import Value, describe_values, values
from models.networks import Perceptron
from models.spec import Entry, ModelSpec

SPEC = ModelSpec(
    summary="the sum of two numbers",
    network=partial(Perceptron, features=2, outputs=1),
    entry=Entry(shape=(2,), dtype=np.dtype(np.float32)),
    postprocess=values,
    describe=describe_values,
    prediction=Value,
    example=np.array([[0.25, 0.5]], dtype=np.float32),
)
"""

RECIPE = """
from pathlib import Path

import torch
from pydantic import Field
from torch import nn
from torch.nn.functional import mse_loss

from training.recipe import Dataset, Hyperparameters, Progress, Recipe, Report, Split


class Config(Hyperparameters):
    epochs: int = Field(200, ge=1, description="passes over the training data")


def load(config: Config, data: Path) -> Dataset:
    points = torch.rand(300, 2, generator=torch.Generator().manual_seed(1))
    splits = [Split(part, part.sum(dim=1, keepdim=True)) for part in points.split(100)]
    return Dataset(name="sums", train=splits[0], validation=splits[1], test=splits[2])


def fit(network: nn.Module, dataset: Dataset, config: Config, report: Report) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for epoch in range(1, config.epochs + 1):
        optimizer.zero_grad()
        loss = mse_loss(network(dataset.train.samples), dataset.train.targets)
        loss.backward()
        optimizer.step()
        report(Progress(epoch=epoch, epochs=config.epochs, step=epoch, steps=config.epochs, loss=loss.item()))


def evaluate(network: nn.Module, split: Split) -> dict[str, float]:
    with torch.inference_mode():
        return {"mse": mse_loss(network(split.samples), split.targets).item()}


RECIPE = Recipe(
    config=Config, arguments=lambda config: {"activation": config.activation}, load=load, fit=fit, evaluate=evaluate,
    metric="mse", higher_is_better=False,
)
"""


def test_a_fourth_model_is_trained_served_and_tested_as_two_new_files(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for folder in ("models", "training", "service", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "models" / "adder.py").write_text(MODEL)
    (copy / "training" / "adder.py").write_text(RECIPE)

    train = [sys.executable, "-m", "training", "adder", "--output", "models/pretrained/adder.pt"]
    done = subprocess.run(train, cwd=copy, capture_output=True, text=True, check=True)
    assert "adder.pt" in done.stdout
    record = json.loads((copy / "models" / "pretrained" / "adder.json").read_text())
    assert record["metrics"]["mse"] < 0.01

    with running_server({}, cwd=copy) as url:
        answer = httpx.post(f"{url}/predict/adder", json={"inputs": [[0.5, 0.25], [0.1, 0.1]]}).json()
        first, second = (prediction["value"] for prediction in answer["predictions"])
        assert abs(first - 0.75) < 0.1
        assert abs(second - 0.2) < 0.1
        model = httpx.get(f"{url}/models/adder", timeout=30).json()
        assert model["hyperparameters"]["properties"]["epochs"]["default"] == 200
        assert "/predict/adder" in httpx.get(f"{url}/openapi.json").json()["paths"]
        assert httpx.post(f"{url}/predict/adder", json=model["example"]).status_code == 200

    contracts = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "tests/test_model_contract.py",
        "tests/test_recipe_contract.py",
        "-k",
        "adder",
    ]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLOOP_")}
    tested = subprocess.run(contracts, cwd=copy, env=environ, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout
