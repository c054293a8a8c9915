"""Declared and locked requirements of the project."""

import tomllib

from tests.fakes import ROOT


def _lock(name: str) -> dict[str, str]:
    """The packages of a lock file, each with its version."""
    return dict(line.split(" ;")[0].split("==") for line in (ROOT / name).read_text().splitlines())


LOCK = _lock("requirements.lock")  # of serving and training
DEVELOPMENT = _lock("requirements-dev.lock")  # what tests and checks need besides
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
