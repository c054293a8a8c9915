"""Declared and locked requirements of the project."""

import tomllib

from tests.fakes import ROOT

LOCK = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split() if "==" in line)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
