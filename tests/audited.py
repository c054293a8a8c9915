"""Services whose captured answers are labelled on the page."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from models import catalog
from service.app import create_app
from service.settings import Settings
from tests.fakes import LINE, InProcess, save_line
from tests.serving import no_recipes
from tests.signatures import SIGNATURES, save
from tests.sockets import listening
from tests.templates import migrated
from tests.waiting import until

SHIPPED = catalog.specs()


@contextmanager
def audited(folder: Path, *models: str, rate: float | None = 1.0, **settings: Any) -> Iterator[httpx.Client]:
    """Serve models that are shipped, of SIGNATURES, or `line`; `rate`: of their capture, None: not set."""
    specs = {name: {**SHIPPED, **SIGNATURES, "line": LINE}[name] for name in models}
    for name in models:
        if name in SIGNATURES:
            save(folder, name)
        elif name == "line":
            save_line(folder)
        else:
            for path in catalog.PRETRAINED.glob(f"{name}.*"):
                (folder / path.name).write_bytes(path.read_bytes())
    migrated(folder / "store")
    made = create_app(
        Settings(store=folder / "store", **settings), specs, folder, no_recipes, partial(InProcess, specs)
    )
    with listening(made) as ((_, port), _), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for name in models if rate is not None else ():
            assert client.put(f"/models/{name}/capture", json={"rate": rate}).status_code == 200
        yield client


def answered(client: httpx.Client, model: str, **request: Any) -> str:
    """Return the id of an answer, once it is captured."""
    answer = client.post(f"/predict/{model}", **request)
    assert answer.status_code == 200, answer.text
    prediction = str(answer.json()["id"])
    until(lambda: client.get(f"/predictions/{prediction}").status_code == 200)
    return prediction


def told(client: httpx.Client, prediction: str, index: int = 0) -> list[tuple[Any, str, bool]]:
    """Return truth, kind and whether it stands of each entry of feedback about an answer, the oldest first."""
    samples = client.get(f"/predictions/{prediction}").json()["samples"]
    (sample,) = [one for one in samples if one["index"] == index]
    return [(one["truth"], one["kind"], one["replaced_at"] is None) for one in sample["feedback"]]
