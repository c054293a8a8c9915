"""Data augmentation of whole batches: affine and elastic distortion."""

import math

import torch
from torch import Tensor

_ANGLE = math.radians(10)  # maximum rotation in both directions
_SCALE = 0.1  # maximum change of size, as a fraction
_SHIFT = 2 / 14  # maximum shift, 2 pixels, in units of half the picture's width
_KNOTS = 7  # of the displacement field along each side: one every four pixels


def affine(samples: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate, scale and shift each picture by a small random amount, uint8 (N, 1, 28, 28)."""
    return _sampled(samples, _affine_grid(samples, generator))


def distort(samples: Tensor, generator: torch.Generator, *, elastic: float) -> Tensor:
    """Apply `affine` and an elastic distortion of `elastic` pixels (standard deviation).

    The displacement field is smooth, after Simard, Steinkraus, Platt: Best Practices for CNNs, 2003.
    """
    grid = _affine_grid(samples, generator)
    knots = torch.randn(len(samples), 2, _KNOTS, _KNOTS, generator=generator).to(samples.device) * (elastic / 14)
    bent = torch.nn.functional.interpolate(knots, size=samples.shape[2:], mode="bicubic", align_corners=True)
    return _sampled(samples, grid + bent.permute(0, 2, 3, 1))


def _affine_grid(samples: Tensor, generator: torch.Generator) -> Tensor:
    """Source position of each pixel of the new pictures, float32 (N, 28, 28, 2) in -1..1."""
    turn, scale, right, down = (2 * torch.rand(4, len(samples), generator=generator) - 1).unbind()
    cosine, sine = (_ANGLE * turn).cos() * (1 + _SCALE * scale), (_ANGLE * turn).sin() * (1 + _SCALE * scale)
    matrices = torch.stack([cosine, -sine, _SHIFT * right, sine, cosine, _SHIFT * down], dim=1)
    matrices = matrices.reshape(-1, 2, 3).to(samples.device)  # drawn on the CPU: the same on every device
    return torch.nn.functional.affine_grid(matrices, list(samples.shape), align_corners=False)


def _sampled(samples: Tensor, grid: Tensor) -> Tensor:
    moved = torch.nn.functional.grid_sample(samples.float(), grid, align_corners=False)
    return moved.round().to(torch.uint8)
