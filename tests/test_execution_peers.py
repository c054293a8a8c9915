"""Several torch subprocesses on loopback that train one network."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.catalog import specs
from models.checkpoints.location import StoreLocation
from models.groups import PEER_LOST
from models.messages import Failed, FailureKind, Fit, Fitted, Message, Progressed
from service.execution.peers import GroupChild
from service.execution.process import Child, Printed
from tests.peers import LocalPeers
from training.executor import Executor

pytestmark = pytest.mark.slow
CONFIG = {"epochs": 4, "batch_size": 15, "optimizer": "momentum", "lr": 0.05}


def order(folder: Path, **values: object) -> Fit:
    fit = Fit(
        model="regressor",
        config=CONFIG,
        data=folder,
        store=StoreLocation(folder),
        job="j",
        attempt=1,
        device="cpu",
        tensorboard=False,
    )
    return replace(fit, **values)  # type: ignore[arg-type]


@contextmanager
def group(peers: LocalPeers) -> Iterator[GroupChild]:
    child = GroupChild(peers)
    try:
        yield child
    finally:
        child.stop()
        peers.stop()


def answers(child: Child) -> Iterator[Message | Printed]:
    """The messages until the result, or the end."""
    while child.exit is None:
        for message in child.messages(30):
            yield message
            if isinstance(message, Fitted | Failed):
                return


def last(child: Child) -> Message | Printed:
    return [message for message in answers(child) if not isinstance(message, Printed)][-1]


def weights(folder: Path, fitted: Message | Printed) -> dict[str, torch.Tensor]:
    assert isinstance(fitted, Fitted), fitted
    (path,) = (folder / "checkpoints/regressor").glob(f"{fitted.record.sha256[:12]}*.pt")
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return found


def test_two_processes_train_as_one_does_with_the_double_batch_and_must_have_the_same(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    one: list[Message] = []
    Executor(one.append, specs()).do(order(alone, config={**CONFIG, "batch_size": 30}))
    peers = LocalPeers()
    with group(peers) as pair:
        pair.send(order(together))
        told = list(answers(pair))
        points = [message.point for message in told if isinstance(message, Progressed)]
        assert [(point.step, point.steps) for point in points] == [(4, 16), (8, 16), (12, 16), (16, 16)]
        expected, found = weights(alone, one[-1]), weights(together, told[-1])
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
        refused: list[tuple[dict[str, object], str]] = [
            ({"config": {**CONFIG, "epochs": 5}}, "the nodes of this job do not have the same hyperparameters"),
            ({"model": "missing"}, "this worker has no recipe for missing"),
        ]
        for changed, words in refused:
            peers.changed = changed
            pair.send(order(together))
            failed = last(pair)
            assert isinstance(failed, Failed)
            assert failed.kind is FailureKind.TRAINING
            assert words in failed.detail


def test_a_killed_peer_ends_the_attempt_and_the_next_one_goes_on(tmp_path: Path) -> None:
    long = order(tmp_path, config={**CONFIG, "epochs": 10_000})
    peers = LocalPeers()
    with group(peers) as pair:
        pair.send(long)
        for message in answers(pair):
            if isinstance(message, Progressed) and (tmp_path / "jobs/j/resume-1.pt").exists():
                os.kill(peers.children[0].pid, signal.SIGKILL)
                break
        assert not [message for message in answers(pair) if isinstance(message, Fitted | Failed)]
        assert pair.exit == PEER_LOST
    with group(LocalPeers()) as pair:
        pair.send(replace(long, attempt=2))
        first = next(message for message in answers(pair) if isinstance(message, Progressed))
        assert first.point.epoch > 1
