"""A model small enough to know its answers by heart. Imports little: the digest of its code is a key of its exports."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.checkpoints import state_dict
from models.checkpoints.record import Record
from models.outputs import Value, describe_values, values
from models.spec import Entry, ModelSpec


class Line(nn.Module):
    """slope * x + offset, elementwise on (N, 1)."""

    def __init__(self, *, slope: float = 2.0, offset: float = 1.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([float(slope)]))
        self.offset = nn.Parameter(torch.tensor([float(offset)]))

    def forward(self, samples: Tensor) -> Tensor:
        return samples * self.slope + self.offset


LINE = ModelSpec(
    summary="2x + 1",
    network=Line,
    entry=Entry(shape=(1,), dtype=np.dtype(np.float32)),
    postprocess=values,
    describe=describe_values,
    prediction=Value,
    example=np.array([[3.0]], dtype=np.float32),
)


def save_line(folder: Path, name: str = "line", slope: float = 2.0, offset: float = 1.0) -> Path:
    """A checkpoint of LINE under `folder`."""
    path = folder / f"{name}.pt"
    sha256 = state_dict.save_weights(Line(slope=slope, offset=offset).state_dict(), path)
    state_dict.save_record(Record(model=name, sha256=sha256), path)
    return path
