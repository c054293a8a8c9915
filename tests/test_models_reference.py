"""Samples of another scale or sign than the training data are refused in their place, on every route."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from models.entries import Entries, checked
from models.mnist import SPEC, drawn_seven
from models.reference import Bounds, within
from models.spec import Array
from tests.problems import is_problem
from tests.serving import npy, serving
from training import data

SEVEN = drawn_seven()
NOISE = np.random.default_rng(0).integers(0, 256, SEVEN.shape).astype(np.uint8)
BRIGHT = np.pad(np.full((1, 1), 255, np.uint8), (13, 14))
LIKE_0_1 = "values look like 0..1: multiply by 255"
INVERTED = "looks like black on white: send 255 - x"
WRONG: dict[str, tuple[Callable[[Array], Array], str]] = {
    "0..1": (lambda ink: ink / 255, LIKE_0_1),
    "binary": (lambda ink: ink > 127, LIKE_0_1),
    "0..1, black on white": (lambda ink: 1 - ink / 255, LIKE_0_1),
    "0..16": (lambda ink: ink / 16, "the brightest pixel is 16: scale the values to 0..255"),
    "black on white": (lambda ink: 255 - ink, INVERTED),
    "grey on white": (lambda ink: 255 - ink // 2, INVERTED),
    "binary, black on white": (lambda ink: np.where(ink > 127, 0, 255), INVERTED),
    "white on grey": (lambda ink: np.maximum(ink, 40), "the background is 40"),
    "noise": (lambda ink: np.maximum(NOISE // 4 * 3, ink), "the background is"),
    "dark noise": (lambda _: np.random.default_rng(1).exponential(20, (28, 28)).clip(0, 255), "looks like noise"),
    "scattered pixels": (lambda _: (np.random.default_rng(2).random(SEVEN.shape) < 0.1) * 255, "looks like noise"),
    "0/1 and one bright pixel": (lambda ink: np.maximum(ink > 127, BRIGHT), "1 of 784"),
}
RIGHT: dict[str, Callable[[Array], Array]] = {
    "as it is": lambda ink: ink,
    "blank": lambda ink: ink * 0,
    "binary in 0..255": lambda ink: np.where(ink > 127, 255, 0),
    "half as bright": lambda ink: ink // 2,
    "moved by 6 pixels": lambda ink: np.roll(ink, 6, axis=-1),
}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving() as client:
        yield client


def as_pixels(array: Array) -> Array:
    return np.rint(array).astype(np.uint8)


@pytest.mark.parametrize("kind", WRONG)
def test_an_array_unlike_the_training_data_is_refused_in_its_place(client: TestClient, kind: str) -> None:
    change, detail = WRONG[kind]
    wrong = change(SEVEN)
    response = client.post("/predict/mnist", json={"inputs": [SEVEN.tolist(), (wrong * 1.0).tolist(), SEVEN.tolist()]})
    first, second, third = response.json()["predictions"]
    assert first["label"] == third["label"] == 7
    assert second["error"]["title"] == "Unlike the training data"
    assert detail in second["error"]["detail"]
    body, headers = npy(as_pixels(wrong)[None]), {"content-type": "application/x-npy"}
    for route in ("/predict/mnist", "/preview/mnist", "/explain/mnist"):
        assert is_problem(client.post(route, content=body, headers=headers), 422, "Unlike the training data")


@pytest.mark.parametrize("kind", WRONG)
def test_v2_names_the_sample_that_is_unlike_the_training_data(client: TestClient, kind: str) -> None:
    change, detail = WRONG[kind]
    tail = np.stack([SEVEN, as_pixels(change(SEVEN))]).tobytes()
    tensor: dict[str, Any] = {"name": "input", "datatype": "UINT8", "shape": [2, 28, 28]}
    response = client.post("/v2/models/mnist/infer", json={"inputs": [{**tensor, "data": list(tail)}]})
    assert response.status_code == 400
    assert response.json()["error"].startswith(f"Unlike the training data: sample 1: {detail}")
    head = str({"inputs": [{**tensor, "parameters": {"binary_data_size": len(tail)}}]}).replace("'", '"').encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert client.post("/v2/models/mnist/infer", content=head + tail, headers=headers).status_code == 400


@pytest.mark.parametrize("kind", RIGHT)
def test_an_array_like_the_training_data_is_answered(client: TestClient, kind: str) -> None:
    response = client.post("/predict/mnist", json={"inputs": [RIGHT[kind](SEVEN).tolist()]})
    assert response.status_code == 200


@pytest.mark.slow
def test_no_digit_of_mnist_is_refused_and_every_changed_one_is(mnist_folder: Path) -> None:
    """Those of the test split, that the bounds were not chosen by."""
    digits = data.mnist(mnist_folder).test.samples[:, 0].numpy()
    assert len(digits) == 10_000
    assert not SPEC.check(digits)
    for kind, (change, detail) in WRONG.items():
        if kind != "noise":
            found = SPEC.check(np.stack([as_pixels(change(digit)) for digit in digits[:1000]]))
            assert len(found) == 1000, kind
            assert {error.detail for error in found.values() if not error.detail.startswith(detail)} == set(), kind


def above(limit: float) -> Bounds:
    return Bounds(
        name=f"above {limit:g}",
        statistic=lambda entries: entries.max(axis=1),
        high=limit,
        detail=lambda value: f"{value:g}",
    )


def test_the_first_bounds_that_an_entry_is_out_of_give_its_error() -> None:
    accepts_nine = Bounds(
        name="least",
        statistic=lambda entries: entries.min(axis=1),
        low=0,
        high=8,
        detail=lambda value: None if value == 9 else "min",
    )
    check = within(above(10), above(5), accepts_nine)
    found = check(np.array([[1, 2], [6, 1], [11, 1], [9, 9], [-1, 0], [12, 12]]))
    assert {position: error.detail for position, error in found.items()} == {
        1: "6",
        2: "11",
        3: "9",
        4: "min",
        5: "12",
    }


def test_the_statistics_decide_on_what_is_not_clear() -> None:
    found = Bounds(name="sum", statistic=lambda entries: entries.sum(axis=1), low=1, detail="{:g}".format)
    check = within(found).unless(lambda entries: bool((entries > 5).all()))
    assert not check(np.array([[6, 9]]))
    assert not check(np.array([[1, 9]]))
    assert list(check(np.array([[6, 9], [0, 0]]))) == [1]
    assert list(check.bounded_by({"sum": [4, 9]})(np.array([[0, 0]]))) == [0]


def test_refused_entries_keep_their_places_among_other_bad_ones() -> None:
    bad = SPEC.check(as_pixels(SEVEN / 255)[None])[0]
    entries = checked(Entries(np.array([[1], [20], [3]]), {0: bad, 2: bad}), within(above(10)))
    assert entries.good.tolist() == [[1], [3]]
    assert {position: error.detail for position, error in entries.errors.items()} == {
        0: bad.detail,
        2: bad.detail,
        3: "20",
    }


def test_a_model_without_a_check_accepts_every_number(client: TestClient) -> None:
    assert client.post("/predict/regressor", json={"inputs": [[-1e6], [1e6]]}).status_code == 200
