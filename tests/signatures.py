"""Small models of each kind that a signature can describe, and their checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from typing_extensions import TypedDict

from models.checkpoints import artifact_files, state_dict
from models.checkpoints.record import Record
from models.errors import InvalidInput
from models.outputs import Value, describe_values, probabilities, values
from models.signature import Category, Number, Output, Padded, Picture, Text
from models.signature import Tensor as TensorInput
from models.spec import Array, ModelSpec, Prediction

WORDS = ["<unknown>", "good", "bad", "film", "not"]
VOCABULARY = {"words": WORDS, "labels": ["negative", "positive"], "weight": np.array([1.0, 2.0], np.float32)}


class Table(nn.Module):
    """A row of mixed columns: float32 (N,), int64 (N,), float32 (N,) -> float32 (N, 1). A missing fare is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.kind = nn.Embedding(2, 3)
        self.out = nn.Linear(6, 1)

    def forward(self, age: Tensor, sex: Tensor, fare: Tensor) -> Tensor:
        missing = torch.isnan(fare)
        known = torch.where(missing, torch.zeros_like(fare), fare)
        columns = torch.stack([age / 100, known / 100, missing.float()], dim=1)  # (N, 3)
        outputs: Tensor = self.out(torch.cat([columns, self.kind(sex)], dim=1))
        return outputs


class Bag(nn.Module):
    """A text classifier: ids int64 (N, L), mask bool (N, L) -> logits (N, 2)."""

    def __init__(self, *, words: int = len(WORDS)) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        weights = mask.float()[:, :, None]  # (N, L, 1)
        mean = (self.embedding(ids) * weights).sum(dim=1) / weights.sum(dim=1)  # (N, 4)
        logits: Tensor = self.out(mean)
        return logits


class Series(nn.Module):
    """A GRU that answers at its last real step: float32 (N, L, 2), int64 (N,) -> float32 (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(2, 5, batch_first=True)
        self.out = nn.Linear(5, 1)

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        states, _ = self.gru(series)  # (N, L, 5)
        last = (lengths - 1)[:, None, None].expand(-1, 1, states.shape[2])
        outputs: Tensor = self.out(states.gather(1, last)[:, 0])
        return outputs


class Tagger(nn.Module):
    """A number for each step: float32 (N, L) -> float32 (N, L). Convolution over zeros as over the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, steps: Tensor) -> Tensor:
        outputs: Tensor = self.convolution(steps[:, None])[:, 0]
        return outputs


class Siamese(nn.Module):
    """Distance of two pictures: uint8 (N, 8, 8) twice -> float32 (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(64, 4)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        one, other = (self.embed(picture.float().flatten(1) / 255) for picture in (left, right))
        outputs: Tensor = (one - other).square().sum(dim=1, keepdim=True)
        return outputs


class Heads(nn.Module):
    """Two outputs of one tensor: float32 (N, 3) -> logits (N, 2) and float32 (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.kind = nn.Linear(3, 2)
        self.size = nn.Linear(3, 1)

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        return self.kind(samples), self.size(samples)[:, 0]


class Denoiser(nn.Module):
    """A picture for a picture: uint8 (N, 8, 8) -> float32 (N, 8, 8) in 0..255."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, picture: Tensor) -> Tensor:
        return picture.float() * self.gain


def grey_8x8(picture: Image.Image) -> Array:
    """Read a picture as uint8 (8, 8). Raises InvalidInput if it is smaller."""
    if min(picture.size) < 8:
        raise InvalidInput("Picture too small", f"the picture has {picture.width}x{picture.height} pixels; send 8x8")
    return np.asarray(picture.convert("L").resize((8, 8)))


def words_of(sample: Mapping[str, Any], artifacts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Look each word of a review up in the vocabulary of the version."""
    words: list[str] = artifacts.get("words", WORDS)
    found = sample["review"].lower().split()
    if not found:
        raise InvalidInput("No words", "review: the text has no words")
    return {"ids": [words.index(word) if word in words else 0 for word in found]}


class Review(TypedDict):
    """The prediction for a review."""

    label: str
    probability: float


def named_label(rows: Array, artifacts: Mapping[str, Any]) -> Sequence[Prediction]:
    """Probabilities (N, 2) -> N of Review, with the names of the version's labels."""
    names = artifacts.get("labels", VOCABULARY["labels"])
    return [{"label": names[row.argmax()], "probability": row.max()} for row in rows]


def two_heads(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Turn the logits of the kind into probabilities."""
    return {**outputs, "kind": probabilities(outputs["kind"])}


def rounded(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Round the pixels of a picture."""
    return {"clean": np.clip(np.rint(outputs["clean"]), 0, 255).astype(np.uint8)}


def spot(level: int) -> Image.Image:
    """Draw a grey picture with one bright pixel."""
    pixels = np.full((8, 8), level, np.uint8)
    pixels[2, 5] = 255
    return Image.fromarray(pixels)


TABLE = ModelSpec(
    summary="a row of mixed columns, one of them optional",
    network=Table,
    inputs={
        "age": Number(0, 120),
        "sex": Category(["female", "male"]),
        "fare": Number(0, 600, default=float("nan")),
    },
    postprocess=values,
    describe=describe_values,
    prediction=Value,
    example=[{"age": 22, "sex": "male", "fare": None}, {"age": 38, "sex": "female", "fare": 71.25}],
)
TEXT = ModelSpec(
    summary="whether a review is positive",
    network=Bag,
    inputs={"review": Text(max_chars=200)},
    encode=words_of,
    padding={"ids": Padded(mask="mask")},
    postprocess=probabilities,
    describe=named_label,
    prediction=Review,
    example=[{"review": "good film"}, {"review": "not a good film at all"}],
)
SERIES = ModelSpec(
    summary="the next value of a series",
    network=Series,
    inputs={"series": TensorInput((None, 2), low=-1e6, high=1e6, longest=1000)},
    padding={"series": Padded(lengths="lengths")},
    postprocess=values,
    describe=describe_values,
    prediction=Value,
    example=[{"series": [[0.5, 1.0]]}, {"series": [[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]}],
)
TAGGER = ModelSpec(
    summary="a number for each step of a series",
    network=Tagger,
    inputs={"steps": TensorInput((None,), low=-100, high=100)},
    padding={"steps": Padded()},
    outputs={"tags": Output((None,), like="steps")},
    example=[{"steps": [1.0, 2.0, 3.0]}, {"steps": [4.0]}],
)
UNPADDED = ModelSpec(
    summary="as the tagger, without padding: only series of equal length share a batch",
    network=Tagger,
    inputs={"steps": TensorInput((None,), low=-100, high=100)},
    outputs={"tags": Output((None,))},
    example=[{"steps": [1.0, 2.0, 3.0]}, {"steps": [4.0]}],
)
SIAMESE = ModelSpec(
    summary="how different two pictures are",
    network=Siamese,
    inputs={"left": Picture(grey_8x8, (8, 8)), "right": Picture(grey_8x8, (8, 8))},
    postprocess=values,
    describe=describe_values,
    prediction=Value,
    example=[{"left": spot(0), "right": spot(40)}],
)
HEADS = ModelSpec(
    summary="kind and size of a thing",
    network=Heads,
    inputs={"samples": TensorInput((3,), low=-10, high=10)},
    outputs={"kind": Output((2,), labels=["cat", "dog"]), "size": Output()},
    postprocess=two_heads,
    example=[{"samples": [1.0, 2.0, 3.0]}, {"samples": [0.0, -1.0, 0.5]}],
)
DENOISER = ModelSpec(
    summary="a cleaned picture",
    network=Denoiser,
    inputs={"picture": Picture(grey_8x8, (8, 8))},
    outputs={"clean": Output((8, 8), np.uint8, picture=True)},
    postprocess=rounded,
    example=[{"picture": spot(100)}],
)
SIGNATURES = {
    "table": TABLE,
    "text": TEXT,
    "series": SERIES,
    "tagger": TAGGER,
    "unpadded": UNPADDED,
    "siamese": SIAMESE,
    "heads": HEADS,
    "denoiser": DENOISER,
}
ARTIFACTS: Mapping[str, Mapping[str, Any]] = {"text": VOCABULARY}


def save(folder: Path, name: str, seed: int = 0, artifacts: Mapping[str, Any] | None = None) -> Path:
    """Write a checkpoint of one of SIGNATURES with random weights, and its record."""
    path = folder / f"{name}.pt"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SIGNATURES[name].network()
    sha256 = state_dict.save_weights(network.state_dict(), path)
    kept, files = artifact_files.divided(ARTIFACTS.get(name, {}) if artifacts is None else artifacts)
    artifact_files.write(files, folder)
    state_dict.save_record(Record(model=name, sha256=sha256, artifacts=kept), path)
    return path
