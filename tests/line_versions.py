"""Versions of the small model over the API: their content, upload and promotion."""

import io
from typing import Any

import torch
from starlette.testclient import TestClient

from tests.fakes import Line


def state(slope: float, offset: float = 1.0) -> bytes:
    """A state_dict file of the network slope * x + offset."""
    file = io.BytesIO()
    torch.save(Line(slope=slope, offset=offset).state_dict(), file)
    return file.getvalue()


def upload(client: TestClient, slope: float) -> int:
    """Upload it, and return the number of the version."""
    response = client.post("/models/line/versions", content=state(slope))
    assert response.status_code == 201, response.text
    return int(response.json()["version"])


def promote(client: TestClient, version: int) -> Any:
    """Promote a version, and return the response."""
    return client.post("/models/line/promote", json={"version": version})
