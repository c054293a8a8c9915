"""A model of medium size for measurements and tests: ResNet-18 with random weights, 11.7 million parameters, 45 MB."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.service_process import ROOT
from models.outputs import Classification, describe_classes, probabilities
from models.spec import Array, Entry, ModelSpec, by_name

SIDE = 224
NAME = "resnet"
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None] * 255
_SPREAD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None] * 255
_MODEL = "from benchmarks.resnet import SPEC\n\n__all__ = ['SPEC']\n"


def normalised(entries: Array) -> Array:
    """Convert pictures uint8 (N, 224, 224, 3) to samples float32 (N, 3, 224, 224)."""
    samples = np.ascontiguousarray(entries.transpose(0, 3, 1, 2), dtype=np.float32)
    samples -= _MEAN
    samples /= _SPREAD
    return samples


def read_picture(picture: Image.Image) -> Array:
    """Resize a picture to one entry, uint8 (224, 224, 3)."""
    return np.asarray(picture.convert("RGB").resize((SIDE, SIDE)))


def waves() -> Array:
    """Draw a picture, uint8 (224, 224, 3)."""
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    return np.stack([across, down, (across + down) // 2], axis=2).astype(np.uint8)


SPEC = ModelSpec(
    summary="one of 1000 classes of a colour picture",
    network=by_name("benchmarks.resnet_network:ResNet18"),
    entry=Entry(shape=(SIDE, SIDE, 3), dtype=np.dtype(np.uint8), low=0, high=255),
    preprocess=normalised,
    picture=read_picture,
    postprocess=probabilities,
    describe=describe_classes,
    prediction=Classification,
    example=waves()[None],
)


def save_weights(path: Path, seed: int = 0) -> None:
    """Write random weights, in a process of its own: this one need not import torch."""
    command = [sys.executable, "-m", "benchmarks.resnet_network", str(path), str(seed)]
    subprocess.run(command, cwd=ROOT, check=True)


def add_to(checkout: Path) -> dict[str, str]:
    """Add the model and a first version to a copy of the packages. Returns variables of the service's environment."""
    (checkout / "models" / f"{NAME}.py").write_text(_MODEL)
    save_weights(checkout / "models" / "pretrained" / f"{NAME}.pt")
    return {"PYTHONPATH": str(ROOT)}
