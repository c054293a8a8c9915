"""python -m training.plainness: train the check for plain digits, models/handwriting/plainness.npz.

The first 27,000 training digits of MNIST fit its network, the next 3,000 set its thresholds. The report is about the
next 25,000, which nothing is fitted to or chosen by; the test split is not used.
"""

import argparse
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from models.errors import InvalidInput
from models.handwriting.normalise import to_field
from models.handwriting.plainness import NUMBERS, Numbers, strangeness
from models.spec import Array
from training import data
from training.plainness.distractors import FAMILIES, Maker, plain, ruled
from training.plainness.network import fit, numbers_of
from training.recipe import TrainingError
from training.report.console import say

_FITTED, _CHOSEN, _REPORTED = slice(27_000), slice(27_000, 30_000), slice(30_000, 55_000)
_EACH, _PLAIN, _RULED = 8_000, 48_000, 16_000  # pictures of each family, of plain digits, and on ruled paper
_SHOWN = 500  # of each family in the report
_EPOCHS = 8
_REFUSED, _UNSURE = 0.001, 0.06  # of the plain digits that set the thresholds


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write the numbers and report. The exit status is 1 if the MNIST files are missing."""
    parser = argparse.ArgumentParser(prog="python -m training.plainness", description=__doc__)
    folder = os.environ.get("TORCHLOOP_DATA") or "data"
    parser.add_argument("--data", type=Path, default=Path(folder).expanduser(), help="folder of datasets")
    parser.add_argument("--output", type=Path, default=NUMBERS, help="where the numbers are written")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # sums in the same order on each machine
    try:
        digits = data.mnist(options.data).train.samples[:, 0].numpy()
    except TrainingError as err:
        sys.stderr.write(f"python -m training.plainness: {err}\n")
        return 1
    numbers = trained(digits)
    np.savez(options.output, allow_pickle=False, **numbers)
    for family, share in refused(digits[_REPORTED], numbers, each=_SHOWN).items():
        say(f"{family:16} {share:7.2%} refused")
    return 0


def trained(digits: Array) -> Mapping[str, Array]:
    """Train on MNIST digits, uint8 (N, 28, 28): the numbers, float16."""
    fitted = digits[_FITTED]
    others = [fields(maker, fitted, _EACH, _key(f"train{name}")) for name, maker in FAMILIES.items()]
    plain_ones = [fields(plain, fitted, _PLAIN, [7, 5]), fields(ruled, fitted, _RULED, _key("trainruled"))]
    network = fit(np.concatenate(plain_ones), np.concatenate(others), epochs=_EPOCHS, seed=0)
    return with_thresholds(numbers_of(network), fields(plain, digits[_CHOSEN], _PLAIN // 2, [7, 4]))


def with_thresholds(numbers: Mapping[str, Array], plain_ones: Array) -> Mapping[str, Array]:
    """Add the scores that all but _REFUSED and all but _UNSURE of plain digits, uint8 (N, 28, 28), stay below."""
    found = np.quantile(scores(plain_ones, numbers), [1 - _REFUSED, 1 - _UNSURE])
    return {**numbers, "threshold": np.asarray(found[0], np.float16), "sure": np.asarray(found[1], np.float16)}


def refused(digits: Array, numbers: Mapping[str, Array], *, each: int) -> Mapping[str, float]:
    """Return the refused share of `each` pictures of each family, and of ten times as many plain digits."""
    threshold = float(numbers["threshold"])
    made = {name: fields(maker, digits, each, _key(f"report{name}")) for name, maker in FAMILIES.items()}
    made["plain"] = fields(plain, digits, 10 * each, [7, 6])
    made["ruled"] = fields(ruled, digits, each, _key("reportruled"))
    return {name: float(np.mean(scores(found, numbers) > threshold)) for name, found in made.items()}


def fields(maker: Maker, digits: Array, count: int, seed: list[int]) -> Array:
    """Draw pictures and normalise them: uint8 (count, 28, 28). Those that are refused anyway are drawn again."""
    random = np.random.default_rng(seed)
    found: list[Array] = []
    while len(found) < count:
        try:
            found.append(to_field(maker(digits, random)))
        except InvalidInput:
            continue
    return np.stack(found)


def scores(found: Array, numbers: Mapping[str, Array]) -> Array:
    """Score fields, uint8 (N, 28, 28), as the service does: float64 (N)."""
    exact: dict[str, Numbers] = {name: values.astype(np.float32) for name, values in numbers.items()}
    return np.array([strangeness(field, exact) for field in found])


def _key(name: str) -> list[int]:
    return [zlib.crc32(name.encode())]


if __name__ == "__main__":
    sys.exit(main())
