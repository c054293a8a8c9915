"""New samples from old ones, a whole batch at once."""

import math

import torch
from torch import Tensor

_ANGLE = math.radians(10)  # largest turn, either way
_SCALE = 0.1  # largest change of size, as a share
_SHIFT = 2 / 14  # largest shift, 2 pixels, where half the picture's width is 1


def affine(samples: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 (N, 1, 28, 28), each picture turned, scaled and shifted a little, by an amount of its own."""
    turn, scale, right, down = (2 * torch.rand(4, len(samples), generator=generator) - 1).unbind()
    cosine, sine = (_ANGLE * turn).cos() * (1 + _SCALE * scale), (_ANGLE * turn).sin() * (1 + _SCALE * scale)
    matrices = torch.stack([cosine, -sine, _SHIFT * right, sine, cosine, _SHIFT * down], dim=1).reshape(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(matrices, list(samples.shape), align_corners=False)  # (N, 28, 28, 2)
    moved = torch.nn.functional.grid_sample(samples.float(), grid, align_corners=False)
    return moved.round().to(torch.uint8)
