"""A group of processes, as one of them sees it. Several processes: test_execution_peers.py."""

from typing import Any

import pytest
import torch
from torch.nn.functional import mse_loss

from training.fitting.batches import batches
from training.fitting.early_stopping import Watch, Watched
from training.fitting.group import Group, group_of, hosted
from training.fitting.phases import Stage
from training.loop import fit, steps_of
from training.metrics import regression
from training.recipe import Hyperparameters, Progress, Split, TrainingError

pytestmark = pytest.mark.usefixtures("one_thread")
POINTS = Split(torch.arange(11.0)[:, None] / 10, torch.arange(11.0)[:, None] / 5)
CPU = torch.device("cpu")
POINT = Progress(epoch=1, epochs=1, step=1, steps=1, loss=0.0)


def ignored(_: object) -> None:
    """A Report."""


def test_each_process_gets_its_part_of_every_batch_and_the_first_one_those_that_are_too_small() -> None:
    def drawn(group: Group | None, batch_size: int) -> list[list[float]]:
        generator = torch.Generator().manual_seed(3)
        chosen = batches(POINTS, batch_size=batch_size, shuffle=True, generator=generator, group=group)
        return [samples.flatten().tolist() for samples, _ in chosen]

    first, second = (drawn(Group(rank, 2, CPU), 4) for rank in (0, 1))
    assert [len(part) for part in first] == [4, 3]
    assert [len(part) for part in second] == [4, 0]
    assert [mine + yours for mine, yours in zip(first, second, strict=True)] == drawn(None, 8)


def test_a_report_carries_its_group_through_the_stages_of_a_run() -> None:
    group = Group(1, 3, CPU)
    report = Stage(report=Watched(ignored, None, group), name="second")
    assert group_of(report) is group
    assert group_of(ignored) is None
    config = Hyperparameters(epochs=2, batch_size=2)
    assert [steps_of(11, config, report), steps_of(11, config)] == [4, 12]


def test_a_recipe_that_does_not_share_its_batches_is_refused_at_its_first_report() -> None:
    group = Group(0, 2, CPU)
    watched = Watched(ignored, None, group)
    words = "cannot be trained on several nodes: its fit has a training loop of its own"
    with pytest.raises(TrainingError, match=words):
        watched(POINT)
    with pytest.raises(TrainingError, match=words):
        watched.require_shared()
    group.used = True
    watched(POINT)


@pytest.mark.parametrize("values", [{}, {"patience": 2, "epochs": 50}, {"lr_finder": True}], ids=str)
def test_a_group_of_one_trains_as_a_process_without_a_group(values: dict[str, Any]) -> None:
    def fitted(group: Group | None) -> tuple[list[Progress], torch.Tensor]:
        told: list[Progress] = []
        torch.manual_seed(1)
        network = torch.nn.Linear(1, 1)
        fit(
            network,
            POINTS,
            Hyperparameters(**{"epochs": 3, "batch_size": 4, "optimizer": "sgd", "lr": 0.1, **values}),
            Watched(told.append, Watch("mse", higher_is_better=False), group),
            loss=mse_loss,
            measure=lambda network: regression(network, POINTS),
            samples_per_report=4,
        )
        return told, network.weight.detach()

    ports: list[int] = []
    with hosted("127.0.0.1", 1, "cpu", ports.append) as group:
        together = fitted(group)
        assert group.used
    assert ports[0] > 0
    alone = fitted(None)
    assert [point.step for point in together[0]] == [point.step for point in alone[0]]
    torch.testing.assert_close(together[1], alone[1])
