"""Models of colour pictures and of optional inputs, for tests of the page."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from models.outputs import Classification, describe_classes, probabilities
from models.signature import Category, Number, Output, Picture, Text
from models.spec import Array, Entry, ModelSpec

SIDE = 8


class Tint(nn.Module):
    """Red, green or blue: float32 (N, 3, 8, 8) -> logits (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, samples: Tensor) -> Tensor:
        logits: Tensor = samples.mean(dim=(2, 3)) * self.scale
        return logits


class Studio(nn.Module):
    """A photo, brighter, and its strongest colour: uint8 (N, 8, 8, 3), float32 (N,) -> logits (N, 3), (N, 8, 8, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, photo: Tensor, gain: Tensor, mood: Tensor, letters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bright = photo.float() * (gain + mood)[:, None, None, None] * self.scale
        return bright.mean(dim=(1, 2)) / 16, bright, letters * self.scale


def colours(picture: Image.Image) -> Array:
    """Read a picture as uint8 (8, 8, 3)."""
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE)))


def centred(entries: Array) -> Array:
    """uint8 (N, 8, 8, 3) -> float32 (N, 3, 8, 8) around 0, as ImageNet's models take them."""
    centred: Array = (entries.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.25
    return centred


def encoded(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """The network gets how many letters the title has."""
    moods = {"dim": 0, "bright": 1}
    letters = np.float32(len(sample["title"]))
    return {"photo": sample["photo"], "gain": sample["gain"], "mood": moods[sample["mood"]], "letters": letters}


def finished(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Logits -> probabilities, colours -> bytes."""
    photo = np.clip(np.rint(outputs["brighter"]), 0, 255).astype(np.uint8)
    return {"tint": probabilities(outputs["tint"]), "brighter": photo, "letters": outputs["letters"]}


def painted(red: int, green: int, blue: int) -> Image.Image:
    """A picture of one colour."""
    return Image.new("RGB", (SIDE, SIDE), (red, green, blue))


RGB = ModelSpec(
    summary="the colour of a picture",
    network=Tint,
    entry=Entry(shape=(SIDE, SIDE, 3), dtype=np.dtype(np.uint8), low=0, high=255),
    picture=colours,
    preprocess=centred,
    postprocess=probabilities,
    describe=describe_classes,
    prediction=Classification,
    example=np.asarray(painted(200, 30, 60))[None],
)
STUDIO = ModelSpec(
    summary="a photo, brighter, and its colour",
    network=Studio,
    inputs={
        "photo": Picture(colours, (SIDE, SIDE, 3)),
        "gain": Number(0, 10, default=1.5),
        "mood": Category(["dim", "bright"], default="dim"),
        "title": Text(max_chars=12, default=""),
    },
    encode=encoded,
    outputs={
        "tint": Output((3,), labels=["red", "green", "blue"]),
        "brighter": Output((SIDE, SIDE, 3), np.uint8, picture=True),
        "letters": Output(),
    },
    postprocess=finished,
    example=[{"photo": painted(100, 20, 40), "gain": 2.0, "mood": None, "title": "At sea"}],
)
COLOURS: Mapping[str, ModelSpec] = {"rgb": RGB, "studio": STUDIO}
