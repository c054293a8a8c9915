"""Calibration and the figures by class, on numbers that can be checked by hand."""

import pytest
import torch
from torch import Tensor, nn

from training.fitting.calibration import best_factor, calibrate
from training.metrics import by_class, calibration_error, confusion, outputs
from training.recipe import Split


class Table(nn.Module):
    """Answers with its samples, through a Linear layer that changes nothing."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.last = nn.Linear(classes, classes)
        nn.init.eye_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, samples: Tensor) -> Tensor:
        answer: Tensor = self.last(samples)
        return answer


def drawn(seed: int, temperature: float) -> Split:
    """Logits, and labels drawn from their probabilities; the logits are then made `temperature` times as large."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(4_000, 3, generator=generator)
    labels = logits.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
    return Split(temperature * logits, labels)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_logits_were_spoilt_by_is_found(temperature: float) -> None:
    split = drawn(0, temperature)
    assert 1 / best_factor(split.samples, split.targets) == pytest.approx(temperature, rel=0.1)


def test_calibration_keeps_every_answer_and_makes_them_as_sure_as_they_are_right() -> None:
    network, split = Table(3), drawn(1, 4.0)
    before = outputs(network, split.samples)
    temperature = calibrate(network, split)
    after = outputs(network, split.samples)
    assert torch.allclose(after * temperature, before, atol=1e-4)
    fresh = drawn(2, 4.0)
    assert calibration_error(fresh.samples.softmax(dim=1), fresh.targets) > 0.05
    assert calibration_error(outputs(network, fresh.samples).softmax(dim=1), fresh.targets) < 0.02


def test_a_network_without_a_linear_layer_cannot_be_calibrated() -> None:
    with pytest.raises(ValueError, match="without a Linear layer"):
        calibrate(nn.Identity(), drawn(0, 1.0))


def test_the_calibration_error_is_the_mean_gap_between_surety_and_truth() -> None:
    probabilities = torch.tensor([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10, dtype=torch.float64)
    targets = torch.tensor([0] * 8 + [1] * 2 + [1] * 6 + [0] * 4)
    assert calibration_error(probabilities, targets) == pytest.approx(0.5 * 0.1)


def test_the_confusion_matrix_counts_a_row_for_each_true_label() -> None:
    split = Split(torch.eye(3)[[0, 0, 1, 2, 2]], torch.tensor([0, 1, 1, 2, 0]))
    assert confusion(Table(3), split).tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 1]]
    assert by_class(confusion(Table(3), split)) == {
        "recall_0": 0.5,
        "recall_1": 0.5,
        "recall_2": 1.0,
        "confusion_0_2": 1.0,
        "confusion_1_0": 1.0,
    }
