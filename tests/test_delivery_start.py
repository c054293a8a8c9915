"""A process that starts answers with what is live once its parts are ready."""

from pathlib import Path

import pytest

from service.delivery.registry import Registry
from service.delivery.trial_follower import TrialFollower
from service.store.database import Store
from tests.fakes import LINE, save_line
from tests.line_versions import upload
from tests.serving import serving

SPECS = {"line": LINE}


def test_a_version_that_is_promoted_while_candidates_are_loaded_answers_from_the_first_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, folder = tmp_path / "shipped", tmp_path / "store"
    shipped.mkdir()
    save_line(shipped)
    with serving(shipped, SPECS, store=folder) as client:
        second = upload(client, 3)
    store = Store(folder)
    begun: list[float | None] = []

    async def promoting(_: TrialFollower, timeout_s: float | None = None) -> None:
        """As another process does meanwhile."""
        begun.append(timeout_s)
        with store.write() as connection:
            Registry(store).promote(connection, "line", second, by="test", reason="it did well", now=1.0)

    monkeypatch.setattr(TrialFollower, "settled", promoting)
    with serving(shipped, SPECS, store=folder) as client:
        assert client.post("/predict/line", json={"inputs": [[1]]}).json()["version"] == second
    assert begun == [None]
    store.close()
