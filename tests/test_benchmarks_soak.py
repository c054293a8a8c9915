"""The arithmetic of the soak's report."""

import re

import pytest

from benchmarks.soak_report import Asked, Kill, Resident, Seen, failures, missed, slopes, table

WEB = Kill(100.0, 7, "service.serve")
OWN = Asked(99.9, 100.1, 7, "RemoteDisconnected", broken=True)


@pytest.mark.parametrize(
    ("request_", "where"),
    [
        (Asked(99.9, 100.1, 7), None),
        (OWN, "own"),
        (OWN._replace(began=130, ended=130.1), "own"),  # a connection that nobody had used since
        (OWN._replace(ended=99.95), "other"),  # it broke before the kill
        (OWN._replace(pid=8), "other"),
        (OWN._replace(pid=0), "near"),
        (OWN._replace(pid=0, began=101.9, ended=102.5), "near"),
        (OWN._replace(pid=0, began=102.1, ended=102.5), "other"),
        (OWN._replace(pid=0, began=98, ended=99), "other"),
        (OWN._replace(broken=False, fault="503"), "other"),  # an answer, and a bad one
        (OWN._replace(broken=False, fault="TimeoutError"), "other"),
    ],
)
def test_only_a_broken_connection_of_a_killed_process_is_due_to_the_kill(request_: Asked, where: str | None) -> None:
    found = failures([request_], [WEB])
    assert {name: getattr(found, name) for name in ("own", "near", "other")} == {
        name: [request_] if name == where else [] for name in ("own", "near", "other")
    }


def test_a_killed_worker_explains_no_failed_request() -> None:
    assert failures([OWN, OWN._replace(pid=0)], [WEB._replace(module="service.worker")]).other == [
        OWN,
        OWN._replace(pid=0),
    ]


def test_the_slope_is_that_of_processes_that_lived_once_they_had_settled() -> None:
    settled = [Resident(at, 1, 200 + 36 * at / 3600) for at in range(60, 200)]
    early = [Resident(at, 1, 3.0 * at) for at in range(60)]
    killed = [Resident(at, 2, at) for at in range(200)]
    young = [Resident(at, 3, at) for at in range(110)]
    assert slopes([*early, *settled, *killed, *young], {2}) == {1: pytest.approx(36)}


def test_a_successful_run_misses_no_aim() -> None:
    seen = Seen([Asked(0, 1, 7), OWN], [WEB], changes=3, versions={("mnist", 2): "ab"}, jobs={"j": "succeeded"})
    assert missed(seen) == []
    assert "2 requests" in table(seen, 60)
    assert "MISSED" not in table(seen, 60)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (Seen(), "no requests were sent"),
        (Seen([Asked(0, 1, 7)], ended=3), "exited with status 3"),
        (Seen([Asked(0, 1, 7, "500 GET /models")]), "500 GET /models"),
        (Seen([Asked(0, 1, 7)], jobs={"j": "running", "k": "succeeded"}), "1 jobs lost or unfinished"),
        (Seen([Asked(0, 1, 7)], jobs={"j": "failed"}), "1 jobs lost or unfinished"),
        (Seen([Asked(0, 1, 7)], lost_versions=[("mnist", 2)]), r"1 versions lost: \[\('mnist', 2\)\]"),
    ],
)
def test_each_missed_aim_is_reported(seen: Seen, words: str) -> None:
    (text,) = missed(seen)
    assert re.search(words, text)
    assert f"MISSED: {text}" in table(seen, 60)
