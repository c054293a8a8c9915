"""The live versions are followed by new promotions alone, and read again as a whole if the history is another one."""

from collections.abc import Sequence

import pytest

from models.checkpoints.record import Record
from service.delivery.live import LiveVersions
from service.delivery.registry import Promotion, Registry
from service.store.database import Store
from service.store.tables import promotions


class Counting(Registry):
    """A registry that notes how many promotions each look has read; None: all of them."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.looks: list[int | None] = []

    def live_with_last(self) -> tuple[int, dict[str, int]]:
        self.looks.append(None)
        last, live = super().live_with_last()
        return last, dict(live)

    def promoted_from(self, promotion: int) -> Sequence[Promotion]:
        found = super().promoted_from(promotion)
        self.looks.append(len(found))
        return found


class Followed:
    """Live versions of a registry with three versions of each model, and a clock that is set by hand."""

    def __init__(self, store: Store) -> None:
        self.store, self.registry, self.now_s = store, Counting(store), 0.0
        self.versions = LiveVersions(self.registry, lambda: self.now_s)
        with store.write() as connection:
            for model in ("a", "b"):
                for number in (1, 2, 3):
                    record = Record(model=model, sha256=f"{number:064x}")
                    self.registry.add(connection, model, store.folder / "x.pt", record, job=None, now=0)

    def promote(self, model: str, number: int) -> None:
        with self.store.write() as connection:
            self.registry.promote(connection, model, number, by="x", reason="x", now=0)

    def roll_back(self, model: str) -> None:
        with self.store.write() as connection:
            self.registry.rollback(connection, model, by="x", reason="x", now=0)


@pytest.fixture
def followed(store: Store) -> Followed:
    return Followed(store)


def test_promotions_and_rollbacks_are_followed_without_reading_the_history(followed: Followed) -> None:
    assert followed.versions.read() == {}
    for number in (1, 2, 3):
        followed.promote("a", number)
    assert followed.versions.read() == {"a": 3}
    followed.promote("b", 1)
    followed.roll_back("a")
    assert followed.versions.read() == {"a": 2, "b": 1} == followed.registry.live()
    assert followed.versions.read() == {"a": 2, "b": 1}
    assert followed.registry.looks == [None, None, 3, None, 1]  # the last None is that of registry.live()


def test_a_restored_backup_is_read_as_a_whole(followed: Followed) -> None:
    followed.promote("a", 1)
    followed.promote("a", 2)
    assert followed.versions.read() == {"a": 2}
    with followed.store.write() as connection:
        connection.execute(promotions.delete().where(promotions.c.version == 2))
    assert followed.versions.read() == {"a": 1}
    with followed.store.write() as connection:  # another history with the same ids
        connection.execute(promotions.update().values(model="b", version=3))
    assert followed.versions.read() == {"b": 3}


def test_all_are_read_again_after_half_a_minute(followed: Followed) -> None:
    followed.promote("a", 1)
    for followed.now_s in (0, 29, 30, 31):
        assert followed.versions.read() == {"a": 1}
    assert followed.registry.looks == [None, 1, None, 1]


def test_what_a_caller_does_with_the_versions_changes_nothing(followed: Followed) -> None:
    followed.promote("a", 1)
    found = dict(followed.versions.read())
    found["a"] = 7
    assert followed.versions.read() == {"a": 1}
