"""Attributions follow the preprocessing back to the entries, or are refused in words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.attribution import NoGradient, attribute
from models.checkpoints import state_dict
from models.checkpoints.record import Record
from models.routing import NotRoutable, routing
from models.spec import Array, Entry, ModelSpec, same
from tests.fakes import LINE
from tests.problems import is_problem
from tests.serving import no_recipes, serving

SHAPE = (6, 8, 3)  # height, width, colours
PIXELS = Entry(shape=SHAPE, dtype=np.dtype(np.uint8), low=0, high=255)
EXAMPLE = np.arange(144, dtype=np.uint8).reshape(1, *SHAPE)
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
Preprocess = Callable[[Array], Array]


def channels_first(entries: Array) -> Array:
    return np.ascontiguousarray(entries.transpose(0, 3, 1, 2), dtype=np.float32)


def flat(entries: Array) -> Array:
    return entries.reshape(len(entries), -1).astype(np.float32)


def padded(entries: Array) -> Array:
    return np.pad(entries.astype(np.float32), ((0, 0), (2, 2), (1, 3), (0, 0)), constant_values=7)


def cropped(entries: Array) -> Array:
    return entries[:, 1:5, 2:7].astype(np.float32)


def normalised(entries: Array) -> Array:
    return channels_first((entries.astype(np.float32) / 255 - MEAN) / STD)


def inverted(entries: Array) -> Array:
    return 255 - entries.astype(np.float32)


def repeated(entries: Array) -> Array:
    return np.concatenate([flat(entries), flat(entries)[:, ::-1]], axis=1)


def nearest(entries: Array) -> Array:
    return entries[:, ::2, ::2].repeat(3, axis=1).astype(np.float32)


def halves(entries: Array) -> Array:
    return (entries.astype(np.float32) / 255).astype(np.float16)


ROUTABLE = [same, channels_first, flat, padded, cropped, normalised, inverted, repeated, nearest, halves]


def one_by_one(preprocess: Preprocess, entry: Entry) -> Array:
    """The derivative of each number of a sample by each number of an entry, one after the other: (S, E)."""
    size = int(np.prod(entry.shape))
    base = np.zeros((1, *entry.shape), entry.dtype)
    columns = []
    for place in range(size):
        changed = base.copy()
        changed.reshape(-1)[place] = 200
        difference = preprocess(changed).astype(np.float64) - preprocess(base).astype(np.float64)
        columns.append(difference.reshape(-1) / 200)
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("preprocess", ROUTABLE, ids=lambda function: function.__name__)
def test_attributions_are_those_of_the_entries(preprocess: Preprocess) -> None:
    jacobian = one_by_one(preprocess, PIXELS)
    route = routing(preprocess, PIXELS, EXAMPLE)
    shape = preprocess(EXAMPLE).shape[1:]
    given = np.random.default_rng(3).normal(size=(2, *shape))
    wanted = (given.reshape(2, -1) @ jacobian).reshape(2, *SHAPE)
    np.testing.assert_allclose(route.gradients(given), wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())
    moved = (given.reshape(2, -1) @ (jacobian != 0)).reshape(2, *SHAPE)
    np.testing.assert_allclose(route.contributions(given), moved)


def test_a_blue_pixel_is_not_moved_by_a_preprocessing_to_channels_first() -> None:
    attributions = np.zeros((1, 3, 6, 8), np.float32)
    attributions[0, 2, 5, 7] = 1
    mapped = routing(channels_first, PIXELS, EXAMPLE).gradients(attributions)
    assert np.argwhere(mapped).tolist() == [[0, 5, 7, 2]]
    assert mapped.dtype == np.float32


def resized(entries: Array) -> Array:
    wide = entries.astype(np.float32)
    return (wide[:, :-1] + wide[:, 1:]) / 2


def standardised(entries: Array) -> Array:
    values = flat(entries)
    centred: Array = values - values.mean(axis=1, keepdims=True)
    return centred


def scaled_to_its_largest(entries: Array) -> Array:
    values = flat(entries)
    scaled: Array = values / np.maximum(values.max(axis=1, keepdims=True), 1)
    return scaled


def logarithms(entries: Array) -> Array:
    return np.log1p(flat(entries))


def sorted_numbers(entries: Array) -> Array:
    return np.sort(flat(entries), axis=1)


def summed(entries: Array) -> Array:
    sums: Array = flat(entries).sum(axis=1, keepdims=True)
    return sums


def raising(entries: Array) -> Array:
    raise ZeroDivisionError


def not_a_number(entries: Array) -> Array:
    return flat(entries) * np.float32("nan")


MIXED = [resized, standardised, scaled_to_its_largest, logarithms, sorted_numbers, summed, raising, not_a_number]


@pytest.mark.parametrize("preprocess", MIXED, ids=lambda function: function.__name__)
def test_numbers_that_are_mixed_are_not_mapped(preprocess: Preprocess) -> None:
    with pytest.raises(NotRoutable):
        routing(preprocess, PIXELS, EXAMPLE)


@pytest.mark.parametrize("example", [[[0.5]], [[-300.0]]])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_scale_of_any_size_is_found(scale: float, example: Any) -> None:
    entry = Entry(shape=(1,), dtype=np.dtype(np.float32))
    route = routing(lambda entries: entries * np.float32(scale) + 1, entry, np.array(example, np.float32))
    np.testing.assert_allclose(route.scale, [scale], rtol=0.1)


def test_a_single_possible_number_cannot_be_probed() -> None:
    entry = Entry(shape=(2,), dtype=np.dtype(np.float32), low=1, high=1)
    with pytest.raises(NotRoutable, match="no range"):
        routing(flat, entry, np.ones((1, 2), np.float32))


class Brightest(nn.Module):
    """One weight for each pixel of a picture (N, 3, 6, 8); only the last of the blue ones counts."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(3, 6, 8))
        with torch.no_grad():
            self.weights[2, 5, 7] = 4

    def forward(self, samples: Tensor) -> Tensor:
        return (samples * self.weights).sum((1, 2, 3))[:, None]


def spec_of(preprocess: Preprocess) -> ModelSpec:
    own = {"network": Brightest, "preprocess": preprocess, "entry": PIXELS, "example": EXAMPLE}
    return ModelSpec(**{**vars(LINE), **own})


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
def test_an_explanation_over_http_has_the_axes_of_the_body(method: str, tmp_path: Path) -> None:
    path = tmp_path / "line.pt"
    sha256 = state_dict.save_weights(Brightest().state_dict(), path)
    state_dict.save_record(Record(model="line", sha256=sha256), path)
    body = {"inputs": np.full((1, *SHAPE), 100).tolist()}
    with serving(tmp_path, {"line": spec_of(channels_first)}, no_recipes) as client:
        (explanation,) = client.post(f"/explain/line?method={method}", json=body).json()["explanations"]
    rows = np.array(explanation["gradient" if method == "gradient" else "attribution"])
    assert np.argwhere(np.abs(rows) > 1e-3).tolist() == [[5, 7, 2]]
    assert rows[5, 7, 2] == pytest.approx(4 if method == "gradient" else 400, rel=1e-3)


def first_sorted(entries: Array) -> Array:
    return np.sort(channels_first(entries), axis=3)


def test_attributions_that_cannot_be_mapped_are_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "line.pt"
    sha256 = state_dict.save_weights(Brightest().state_dict(), path)
    state_dict.save_record(Record(model="line", sha256=sha256), path)
    body = {"inputs": EXAMPLE.tolist()}
    with serving(tmp_path, {"line": spec_of(first_sorted)}, no_recipes) as client:
        assert client.post("/predict/line", json=body).status_code == 200
        words = "line cannot be explained: its attributions cannot be mapped to its inputs: the preprocessing mixes"
        assert is_problem(client.post("/explain/line", json=body), 422, words)
    with pytest.raises(NoGradient, match="cannot be mapped"):
        attribute(spec_of(first_sorted), Brightest(), first_sorted(EXAMPLE), "gradient")
