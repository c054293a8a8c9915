"""A started application that captures every answer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from models import catalog
from models.spec import ModelSpec
from tests.fakes import LINE, save_line
from tests.serving import serving

SPECS = {"line": LINE, "mnist": catalog.specs()["mnist"]}


@contextmanager
def capturing(
    folder: Path, specs: Mapping[str, ModelSpec] = SPECS, *, originals: bool = False, **settings: Any
) -> Iterator[TestClient]:
    """Serve models from an empty `folder`: the shipped mnist, and the fake network for the others."""
    for name in specs.keys() - {"mnist"}:
        save_line(folder, name)
    for path in catalog.PRETRAINED.glob("mnist.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    with serving(folder, specs, **settings) as client:
        for model in specs:
            wanted = {"rate": 1.0, "originals": originals}
            assert client.put(f"/models/{model}/capture", json=wanted).status_code == 200
        yield client
