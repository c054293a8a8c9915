"""Command `drift`: compare the recent inputs and answers of a version with its data."""

import argparse
from collections.abc import Sequence

from service.client import tables
from service.client.answers import Drift, DriftBin, FeatureDrift
from service.client.clients import Client

TEXT = "compare the recent inputs and answers of a version with its data; the exit status is 1 if it has drifted"


def add_options(drift: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    drift.add_argument("--version", type=int, help="a version other than the live one")
    drift.add_argument("--window", default="1h", help="minutes, hours or days until now: 30m, 1h, 7d [1h]")


def run(client: Client, options: argparse.Namespace, _: Sequence[str]) -> int:
    """Run the command."""
    found = client.drift(options.model, version=options.version, window=options.window)
    tables.show(options, found, _print)
    return 1 if found["state"] == "drift" else 0


def _print(found: Drift) -> None:
    asked = f"{found['samples']} samples in {found['window']}"
    tables.say(f"version {found['version']} of {found['model']}: {found['state']}, {asked}")
    if (mean := found["confidence"]) and mean["window"] is not None:
        tables.say(f"mean confidence {mean['window']:.3f}, on its validation split {mean['reference']:.3f}")
    rows = [
        (*_named(one), one["samples"], f"{one['psi']:.3f}", _limit(one), _moved(one["bins"])) for one in _worst(found)
    ]
    tables.table(("", "state", "samples", "PSI", "limit", "changed most"), rows)


def _worst(found: Drift) -> list[FeatureDrift]:
    """Return the features, those furthest beyond their limit first."""
    return sorted(found["features"], key=lambda one: -one["psi"] / (one["limit"] or 1))


def _named(one: FeatureDrift) -> tuple[str, str]:
    above = one["limit"] is not None and one["psi"] > one["limit"]
    name = one["name"] if one["kind"] == "feature" else f"answers: {one['name']}"
    return name, "drift" if one["drifted"] else "above its limit" if above else ""


def _limit(one: FeatureDrift) -> str:
    return "" if one["limit"] is None else f"{one['limit']:.3f}"


def _moved(bins: Sequence[DriftBin]) -> str:
    """Describe the bin whose share has changed most."""
    most = max(bins, key=lambda one: abs(one["window"] - one["reference"]))
    return f"{most['name']}: {most['reference']:.0%} -> {most['window']:.0%}"
