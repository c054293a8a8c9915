"""The metrics of several processes as one."""

from pathlib import Path
from threading import Thread

import pytest

from service.combined import Combined


def test_two_threads_of_a_process_may_publish_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    combined, replace = Combined(tmp_path, {}), Path.replace

    def another_in_between(hidden: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        other = Thread(target=combined.publish, args=([],))
        other.start()
        other.join()
        return replace(hidden, target)

    monkeypatch.setattr(Path, "replace", another_in_between)
    combined.publish([])
    assert len(list(tmp_path.iterdir())) == 1
