"""Splits for good: drawn by the digest of the content, or of a group, with a fixed salt."""

import hashlib
from collections.abc import Iterable

import numpy as np

from models.spec import Array

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)
UNSET = 255  # a row that names no split
_SALT = b"torchloop split 1\0"  # never to be changed: all splits follow from it
_HELD_OUT = 0.1  # share of validation, and of test
PART = 262_144  # rows of an earlier version that are looked up at once


def draw(digest: bytes, group: str | None) -> int:
    """Return a number in [0, 2^64) that is always the same for this content, or for this group."""
    drawn_by = _SALT + (digest if group is None else b"group\0" + group.encode("utf-8", "surrogatepass"))
    return int.from_bytes(hashlib.sha256(drawn_by).digest()[:8], "big")


def drawn(numbers: Array) -> Array:
    """Return the split of each number of `draw`, uint64 (N,) -> uint8 (N,): 80/10/10."""
    share = numbers.astype(np.float64) / 2.0**64
    found = np.full(len(numbers), TRAIN, np.uint8)
    found[share >= 1 - 2 * _HELD_OUT] = VALIDATION
    found[share >= 1 - _HELD_OUT] = TEST
    return found


def assigned(own: Array, numbers: Array, in_training: Array, present: Array, bound: Array) -> Array:
    """Return the splits of new rows, uint8 (N,).

    own          the split that the file names, or UNSET: it wins over `numbers`
    numbers      of `draw`, for the others
    in_training  bool (N,): rows of the built-in training split are for training
    present      bool (3,): the splits that the parent has. One that is in neither is drawn from the file's own
                 training rows, so that there are unseen examples.
    bound        the split that an earlier version gave the content or the group, or UNSET: it wins over `own`
    """
    by_draw = drawn(numbers)
    is_free = bound == UNSET
    found = np.where(is_free, np.where(own == UNSET, by_draw, own), bound).astype(np.uint8)
    for split in (VALIDATION, TEST):
        if not present[split] and not (found == split).any():
            found[is_free & (own == TRAIN) & (by_draw == split)] = split
    found[in_training] = TRAIN
    return found


def known(keys: Array, earlier: Iterable[tuple[Array, Array]]) -> Array:
    """Return the split of each key (N,) in the first of the earlier versions that has it, or UNSET: uint8 (N,).

    `earlier` are the keys (M,) and splits uint8 (M,) of versions, which may be mapped from files: they are read in
    parts. If a version has a key twice, the first one counts.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    by_place = np.full(len(keys), UNSET, np.uint8)  # at the first of the equal keys in `ordered`
    for old_keys, splits in earlier:
        for begin in range(0, len(old_keys) if len(keys) else 0, PART):
            part = old_keys[begin : begin + PART]
            places = np.minimum(np.searchsorted(ordered, part), len(keys) - 1)
            is_ours = (ordered[places] == part) & (by_place[places] == UNSET)
            by_place[places[is_ours][::-1]] = splits[begin : begin + PART][is_ours][::-1]  # the first wins
    is_new = np.ones(len(keys), bool)
    is_new[1:] = ordered[1:] != ordered[:-1]
    found = np.empty(len(keys), np.uint8)
    found[order] = by_place[is_new][np.cumsum(is_new) - 1]
    return found


def present(digests: Array, others: Array) -> Array:
    """Return which of the digests, uint8 (N, 32), are among others, uint8 (M, 32): bool (N,)."""
    return first_of_each(np.concatenate([others, digests]))[len(others) :] < len(others)


def first_of_each(digests: Array) -> Array:
    """Return, for each digest, uint8 (N, 32), the position of its first occurrence, int64 (N,)."""
    words = np.ascontiguousarray(digests).view("<u8")  # (N, 4)
    order = np.lexsort(words.T)  # stable: positions of equal digests ascend
    ordered = words[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    firsts = order[is_new][np.cumsum(is_new) - 1]
    found = np.empty(len(order), np.int64)
    found[order] = firsts
    return found
