"""Computing aside, for work that no caller waits for, and in the engine's thread."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.checkpoints.record import read_verified
from models.coding import example_samples
from models.samples import Columns
from service.inference.backends.pytorch import EagerBackend
from service.inference.engine import Engine
from tests.fakes import LINE, save_line
from tests.signatures import TEXT, VOCABULARY, save


@pytest.fixture
def low() -> Iterator[Executor]:
    """A thread that runs networks."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_slices_of_bounded_time_give_the_values_in_order(tmp_path: Path, low: Executor) -> None:
    engine = Engine({"line": LINE}, EagerBackend("cpu", 1, 4), max_batch=4)
    path = save_line(tmp_path)
    loaded = engine.load("line", 1, path, read_verified("line", path)[1])
    samples = np.arange(11, dtype=np.float32)[:, None]
    assert np.array_equal(engine.compute_aside(loaded, samples, low), 2 * samples + 1)
    engine.close()


def test_samples_of_different_lengths_give_the_values_in_their_order(tmp_path: Path, low: Executor) -> None:
    engine = Engine({"text": TEXT}, EagerBackend("cpu", 1, 4), max_batch=4)
    path = save(tmp_path, "text", artifacts=VOCABULARY)
    loaded = engine.load("text", 1, path, read_verified("text", path)[1])
    example = example_samples(TEXT, loaded.coder)
    assert isinstance(example, Columns)
    samples = example.take([1, 0, 1, 1, 0, 0, 1])
    alone = [np.asarray(engine.compute_now(loaded, samples[row : row + 1]))[0] for row in range(7)]
    assert np.allclose(np.asarray(engine.compute_aside(loaded, samples, low)), alone, atol=1e-6)
    engine.close()


def test_a_network_that_hangs_keeps_neither_other_batches_nor_the_end_waiting(tmp_path: Path) -> None:
    engine = Engine({"line": LINE}, EagerBackend("cpu", 1, 4), max_batch=4)
    path = save_line(tmp_path)
    loaded = engine.load("line", 1, path, read_verified("line", path)[1])
    began, ended = threading.Event(), threading.Event()

    def hang(values: Any) -> Any:
        began.set()
        ended.wait(120)
        return values

    async def go() -> None:
        hangs = engine.compute(replace(loaded, postprocess=hang), LINE.example)
        assert await asyncio.to_thread(began.wait, 60)
        waits = engine.compute(loaded, LINE.example)
        engine.leave_thread()
        assert np.array_equal(await engine.compute(loaded, LINE.example), 2 * LINE.example + 1)
        hangs.cancel()
        ended.set()
        assert np.array_equal(await waits, 2 * LINE.example + 1)  # the thread ends after what it has

    asyncio.run(go())
    engine.close()
