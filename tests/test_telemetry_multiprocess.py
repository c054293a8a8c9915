"""The metrics of several processes as one."""

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from prometheus_client import Metric
from prometheus_client.samples import Sample

from service.telemetry.multiprocess import Combined


def test_of_two_threads_that_publish_at_once_the_newer_number_stays(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    combined, replace, count = Combined(tmp_path, {}), Path.replace, 1

    def families() -> Iterator[Metric]:
        family = Metric("counted", "a number", "counter")
        family.samples = [Sample("counted", {}, count)]
        yield family

    def slow(hidden: Path, target: Path) -> Path:
        nonlocal count
        monkeypatch.setattr(Path, "replace", replace)
        count = 2
        other.start()
        other.join(0.2)  # it is made to wait: were it not, it would be done by now
        return replace(hidden, target)

    other = Thread(target=lambda: combined.publish(families()))
    monkeypatch.setattr(Path, "replace", slow)
    combined.publish(families())
    other.join(60)
    (file,) = tmp_path.iterdir()
    assert b'[["counted",{},2]]' in file.read_bytes()


def test_counts_of_two_processes_are_summed_and_the_earlier_creation_time_is_kept(tmp_path: Path) -> None:
    def family(count: float, created: float) -> Metric:
        made = Metric("counted", "a number", "counter")
        made.samples = [
            Sample("counted_total", {"model": "a"}, count),
            Sample("counted_created", {"model": "a"}, created),
        ]
        return made

    combined = Combined(tmp_path, {})
    combined.publish([family(2, 1_700_000_060.0)])
    (own,) = tmp_path.iterdir()
    own.rename(tmp_path / "999999999.json")  # as another process, which has ended
    (joined,) = combined.families([family(3, 1_700_000_000.0)])
    assert [(sample.name, sample.value) for sample in joined.samples] == [
        ("counted_total", 5.0),
        ("counted_created", 1_700_000_000.0),
    ]
