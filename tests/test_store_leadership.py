"""One process leads; another takes over when it is silent, and what the first one writes then is refused."""

import pytest
from sqlalchemy import update

from service.store.database import Store
from service.store.leadership import LEASE_S, Leadership, LeadershipLost
from service.store.tables import leaders


def leadership(store: Store, holder: str, work: str = "trials") -> Leadership:
    return Leadership(store, work, holder)


def silent(store: Store, seconds: float = LEASE_S + 0.5) -> None:
    """Let the lease look as if it was renewed so many seconds ago."""
    with store.write() as connection:
        connection.execute(update(leaders).values(seen_at=leaders.c.seen_at - seconds))


def may_write(store: Store, one: Leadership, attempt: int) -> bool:
    with store.write() as connection:
        try:
            one.require(connection, attempt)
        except LeadershipLost:
            return False
    return True


def test_the_first_one_leads_and_renews_its_lease(store: Store) -> None:
    first, second = leadership(store, "a"), leadership(store, "b")
    assert (first.lead(), second.lead()) == (1, None)
    silent(store, LEASE_S - 1)
    assert (first.lead(), second.lead()) == (1, None)
    silent(store, LEASE_S - 1)
    assert second.lead() is None  # it was renewed


def test_a_silent_leader_is_succeeded_and_writes_nothing_when_it_wakes_up(store: Store) -> None:
    first, second = leadership(store, "a"), leadership(store, "b")
    assert first.lead() == 1
    assert may_write(store, first, 1)
    silent(store)
    assert second.lead() == 2
    assert not may_write(store, first, 1)
    assert may_write(store, second, 2)
    assert first.lead() is None


def test_a_leader_that_comes_back_before_another_keeps_its_number(store: Store) -> None:
    first = leadership(store, "a")
    first.lead()
    silent(store, 60)
    assert may_write(store, first, 1)
    assert first.lead() == 1


def test_a_lease_from_the_future_has_expired(store: Store) -> None:
    leadership(store, "a").lead()
    silent(store, -3600)
    assert leadership(store, "b").lead() == 2


def test_the_next_one_need_not_wait_for_one_that_resigns(store: Store) -> None:
    first, second = leadership(store, "a"), leadership(store, "b")
    first.lead()
    second.resign()  # it does not lead
    assert second.lead() is None
    first.resign()
    assert second.lead() == 2


def test_each_kind_of_work_has_its_leader(store: Store) -> None:
    assert leadership(store, "a").lead() == 1
    assert leadership(store, "b", "other").lead() == 1
    with pytest.raises(LeadershipLost), store.read() as connection:
        leadership(store, "b", "none").require(connection, 1)
