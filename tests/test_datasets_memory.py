"""An ingest that needs too much memory is refused, and the process goes on."""

import resource
import sys

import numpy as np
import pytest

from training.datasets import memory
from training.datasets.errors import DatasetError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit private memory")


@pytest.mark.slow
def test_more_than_the_limit_is_refused_in_words_and_less_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIMIT", 2**27)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(DatasetError, match=r"0\.125 GiB of memory: send several files"), memory.limited():
        np.ones(2**28, np.uint8)
    with memory.limited():
        assert np.ones(2**25, np.uint8).all()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert np.ones(2**28, np.uint8).all()


def test_a_mapped_file_does_not_count(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIMIT", 2**26)
    mapped = np.memmap(f"{tmp_path}/rows", np.uint8, "w+", shape=(2**28,))
    with memory.limited():
        assert not np.memmap(f"{tmp_path}/rows", np.uint8, "r").any()
    assert mapped.size == 2**28
