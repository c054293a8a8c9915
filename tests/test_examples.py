"""The models in examples/, each a project folder: trained at a small size, served and asked through the application."""

import io
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.catalog import specs
from models.checkpoints.record import Record
from models.contract import fault_of
from models.spec import Array
from service.check import CHECKS
from tests.fakes import ROOT
from tests.problems import is_problem
from tests.projects import trained_and_served
from tests.serving import png

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
EXAMPLES = ROOT / "examples"
TRIED = {  # folder -> model and the hyperparameters of its small run
    "table": ("diabetes", {}),
    "text": ("tickets", {}),
    "series": ("strokes", {}),
    "siamese": ("same_digit", {"pairs": 1_000, "epochs": 12}),
    "two_heads": ("wine", {}),
    "denoiser": ("denoise", {"pictures": 200, "epochs": 6}),
    "rgb_cnn": ("shapes", {"pictures": 600, "epochs": 8}),
    "resnet18": ("photos", {"photos": 4, "batch_size": 4, "epochs": 1}),
}


def bodies_of_readme(example: str) -> list[Any]:
    return [json.loads(body) for body in re.findall(r"-d '(.*)'", (EXAMPLES / example / "README.md").read_text())]


@contextmanager
def served(example: str) -> Iterator[tuple[Mapping[str, float], TestClient]]:
    """Yield the figures of a small run on the test split, and a client of the service with its checkpoint.

    The model keeps the contract of specs, is live, runs in ONNX Runtime and answers the body of its README.
    """
    name, values = TRIED[example]
    with trained_and_served(EXAMPLES / example, name, **values) as (outcome, client):
        record: Record = outcome.record
        assert not {check.promise: fault for check in CHECKS if (fault := fault_of(check, name, specs()[name]))}
        (model,) = client.get("/models").json()["models"]
        assert (model["name"], model["live"]) == (name, 1)
        assert model["backend"] == "onnxruntime", model["backend_reason"]
        for body in [client.get(f"/models/{name}/example").json(), *bodies_of_readme(example)]:
            predictions = client.post(f"/predict/{name}", json=body).json()["predictions"]
            assert len(predictions) == len(body["inputs"])
            assert not any("error" in prediction for prediction in predictions)
        yield record.metrics, client


def predicted(client: TestClient, name: str, *samples: Any) -> list[Any]:
    response = client.post(f"/predict/{name}", json={"inputs": samples})
    assert response.status_code == 200, response.text
    found: list[Any] = response.json()["predictions"]
    return found


def test_every_example_is_tried() -> None:
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} == TRIED.keys()
    for folder, (name, _) in TRIED.items():
        for place in (f"models/{name}.py", f"training/{name}.py"):
            assert (EXAMPLES / folder / place).exists()
        told = (EXAMPLES / folder / "README.md").read_text()
        assert f"torchloop train --project examples/{folder} {name} --output" in told
        assert f"/predict/{name}" in told


def test_mypy_reads_every_example_as_a_project_folder() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert set(settings["mypy_path"]) == {".", *(f"examples/{folder}" for folder in TRIED)}


def test_a_table_with_mixed_columns_and_missing_values() -> None:
    with served("table") as (figures, client):
        assert figures["accuracy"] > 0.65
        row = {"age": 50, "sex": "female", "bmi": 20.0, "pressure": 80}
        heavy = {**row, "bmi": 38.0, "pressure": 120, "sugar": None}
        slow, fast, wrong = predicted(client, "diabetes", row, heavy, {**row, "sex": "f"})
        assert (slow["progress"], fast["progress"]) == ("slow", "fast")
        assert wrong["error"]["detail"] == "sex: 'f' is none of 'female', 'male'"


def test_a_text_classifier_with_a_vocabulary() -> None:
    with served("text") as (figures, client):
        assert figures["accuracy"] > 0.9
        texts = ("the driver never came", "PAYMENT??", "no login today", "...")
        *found, empty = predicted(client, "tickets", *texts)
        assert [row["department"] for row in found] == ["delivery", "billing", "support"]
        assert empty["error"]["title"] == "No words"
        assert client.get("/models/tickets/versions/1").json()["artifacts"] == ["departments", "vocabulary"]
        bundle = client.get("/models/tickets/versions/1/checkpoint?artifacts=true").content
        moved = client.post("/models/tickets/versions", content=bundle).json()
        assert (moved["version"], moved["artifacts"]) == (2, ["departments", "vocabulary"])
        assert client.post("/models/tickets/promote", json={"version": 2}).status_code == 200
        assert [row["department"] for row in predicted(client, "tickets", *texts)[:-1]] == [
            "delivery",
            "billing",
            "support",
        ]


def test_a_gru_over_series_of_any_length() -> None:
    with served("series") as (figures, client):
        assert figures["accuracy"] > 0.9
        angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1).tolist()
        line = [[0.0, 1.0]] * 7
        together = predicted(client, "strokes", {"moves": line}, {"moves": circle})
        assert [row["form"] for row in together] == ["line", "circle"]
        (alone,) = predicted(client, "strokes", {"moves": line})
        assert alone["probability"] == pytest.approx(together[0]["probability"], abs=1e-5)


def test_a_siamese_net_of_two_pictures() -> None:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second, needed here only

    digits = load_digits()
    first, other = ((digits.images[np.flatnonzero(digits.target == label)[-1]] * 15) for label in (0, 1))
    with served("siamese") as (figures, client):
        assert figures["accuracy"] > 0.75
        pictures = [("left", first), ("right", first), ("left", first), ("right", other)]
        files = [(name, (f"{name}.png", png(picture.astype(np.uint8)), "image/png")) for name, picture in pictures]
        same, different = client.post("/predict/same_digit", files=files).json()["predictions"]
        assert (same["same"], different["same"]) == (True, False)


def test_a_net_with_two_heads() -> None:
    with served("two_heads") as (figures, client):
        assert figures["accuracy"] > 0.85
        assert figures["alcohol_mse"] < 0.6
        body = client.get("/models/wine/example").json()
        (wine,) = predicted(client, "wine", *body["inputs"])
        assert int(np.argmax(wine["cultivar"])) == 0
        assert wine["alcohol"] == pytest.approx(14.2, abs=1.5)
        (model,) = client.get("/models").json()["models"]
        assert model["signature"]["outputs"][0]["labels"] == ["Barolo", "Grignolino", "Barbera"]


def box() -> tuple[Array, Array]:
    """A picture of a box of a size that no picture of the training data has, without noise and with it."""
    clean = np.full((40, 30), 60.0)
    clean[10:30, 8:20] = 180
    noisy = clean + np.random.default_rng(0).normal(0, 25, clean.shape)
    return clean, noisy.clip(0, 255).astype(np.uint8)


def test_a_denoiser_answers_a_picture() -> None:
    clean, noisy = box()
    with served("denoiser") as (figures, client):
        assert figures["mse"] < 0.006  # the noise has 0.0096
        headers = {"content-type": "image/png", "accept": "image/png"}
        response = client.post("/predict/denoise", content=png(noisy), headers=headers)
        assert response.headers["content-type"] == "image/png"
        found = np.asarray(Image.open(io.BytesIO(response.content)), float)
        assert found.shape == clean.shape
        assert np.square(found - clean).mean() < 0.7 * np.square(noisy - clean).mean()
        large = client.post("/predict/denoise", content=png(np.zeros((8, 600), np.uint8)), headers=headers)
        assert is_problem(large, 422, "the picture has 600x8 pixels; send at most 512x512")


def test_a_cnn_for_colour_pictures_with_names_of_classes() -> None:
    picture = np.full((64, 64, 3), 220, np.uint8)
    picture[16:48, 16:48] = (10, 40, 100)
    with served("rgb_cnn") as (figures, client):
        assert figures["accuracy"] > 0.8
        response = client.post("/predict/shapes", content=png(picture, "JPEG"), headers={"content-type": "image/jpeg"})
        (found,) = response.json()["predictions"]
        assert found["shape"] == "square"


def test_a_resnet_18() -> None:
    with served("resnet18") as (_, client):
        picture = np.zeros((100, 80, 3), np.uint8)
        response = client.post("/predict/photos", content=png(picture), headers={"content-type": "image/png"})
        (found,) = response.json()["predictions"]
        assert found["label"] in {"red", "green", "blue"}
        assert 0 < found["probability"] <= 1
        size = len(client.get("/models/photos/versions/1/checkpoint").content)
        assert 44e6 < size < 46e6
