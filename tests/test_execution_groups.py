"""Web processes on the nodes of a cluster in memory. Time is an argument: nothing here waits."""

from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from service import group
from service.execution.attempts import job_and_number
from service.execution.groups import Groups, Share, name_of

NONE = Share(0, 0)


class InMemory:
    """A cluster whose groups end only if a test removes them."""

    def __init__(self, nodes: Mapping[str, Share]) -> None:
        self.offered = dict(nodes)
        self.groups: dict[str, tuple[str, Share]] = {}

    def placed(self) -> Collection[str]:
        return {*self.groups, "job-1"}

    def nodes(self) -> Mapping[str, Share]:
        return self.offered

    def place_group(self, name: str, node: str, share: Share) -> bool:
        assert name not in self.groups
        self.groups[name] = node, share
        return True


class Trial:
    """What keeps the groups, what it sees, and its clock."""

    def __init__(self, nodes: Mapping[str, Share], share: Share = NONE) -> None:
        self.sites = InMemory(nodes)
        self.at = 0.0
        self.groups = Groups(self.sites, share, lambda: self.at)

    def look(self, seconds: float = 0.0) -> dict[str, Share]:
        """Look, twice a second for so long. Returns the share of each node that has a group."""
        for _ in range(int(2 * seconds)):
            self.groups.look()
            self.at += 0.5
        self.groups.look()
        return dict(self.sites.groups.values())


def test_each_node_that_offers_cpus_has_one_group_also_one_that_joins() -> None:
    trial = Trial({"head": Share(0, 0), "a": Share(4, 0), "b": Share(1, 0)})
    assert trial.look(5) == {"a": NONE, "b": NONE}
    trial.sites.offered["c"] = Share(2, 0)
    assert trial.look() == {"a": NONE, "b": NONE, "c": NONE}
    assert job_and_number(name_of("a1")) is None


def test_a_second_dispatcher_finds_the_groups_by_their_names() -> None:
    trial = Trial({"a": Share(1, 0)})
    trial.look()
    again = Groups(trial.sites, NONE, lambda: 0.0)
    again.look()  # `place_group` takes no name twice
    assert list(trial.sites.groups) == [name_of("a")]


def test_a_share_is_set_aside_with_as_many_gpus_as_the_node_has() -> None:
    nodes = {"plain": Share(4, 0), "one": Share(4, 1), "eight": Share(64, 8), "small": Share(0.25, 1)}
    assert Trial(nodes, Share(0.5, 2)).look() == {"plain": Share(0.5, 0), "one": Share(0.5, 1), "eight": Share(0.5, 2)}


def test_a_node_with_too_few_cpus_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    trial = Trial({"a": Share(4, 0), "small": Share(2, 0)}, Share(4, 0))
    assert trial.look(5) == {"a": Share(4, 0)}
    told = [record.__dict__ for record in caplog.records if record.msg.startswith("node has too few CPUs")]
    assert [(one["node"], one["cpus"], one["asked"]) for one in told] == [("small", 2, 4)]


def test_a_group_that_ends_is_placed_again_ever_more_rarely_and_at_once_after_a_steady_time() -> None:
    trial = Trial({"a": Share(1, 0), "b": Share(1, 0)})
    times = []
    for _ in range(40):
        if "a" in trial.look():
            times.append(trial.at)
            del trial.sites.groups[name_of("a")]
        trial.at += 0.5
    assert times == [0, 1, 3, 7, 15]
    trial.look(120)
    del trial.sites.groups[name_of("a")]
    assert "a" in trial.look()
    del trial.sites.groups[name_of("a")]
    assert "a" not in trial.look(0.5)
    assert "a" in trial.look(0.5)


def test_a_node_that_has_gone_is_forgotten() -> None:
    trial = Trial({"a": Share(1, 0)})
    for _ in range(3):
        trial.look(4)
        trial.sites.groups.clear()
    del trial.sites.offered["a"]
    assert trial.look(5) == {}
    trial.sites.offered["a"] = Share(1, 0)
    assert trial.look() == {"a": NONE}


def test_the_service_gets_the_environment_of_its_node_without_the_clusters(tmp_path: Path) -> None:
    node = {
        "TORCHLOOP_PORT": "8100",
        "TORCHLOOP_DEVICE": "cuda:all",
        "TORCHLOOP_API_KEYS": "admin:x",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "RAY_AUTH_TOKEN": "secret",
        "RAY_JOB_ID": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(tmp_path),
    }
    given = group.environment(node, Share(0, 2))
    assert given.pop("PYTHONPATH").endswith(f":{tmp_path}")
    assert given == {
        "TORCHLOOP_PORT": "8100",
        "TORCHLOOP_DEVICE": "cuda:all",
        "TORCHLOOP_API_KEYS": "admin:x",
        "TORCHLOOP_WORKER": "external",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "PYTHONSAFEPATH": "1",
    }
    assert group.environment(node, NONE)["TORCHLOOP_DEVICE"] == "cpu"


@pytest.mark.parametrize(("said", "worker"), [("", "external"), (" ", "external"), ("embedded", "embedded")])
def test_a_worker_is_embedded_only_if_the_node_says_so(said: str, worker: str) -> None:
    assert group.environment({"TORCHLOOP_WORKER": said}, NONE)["TORCHLOOP_WORKER"] == worker
