"""Metrics on a split: accuracy, loss, calibration error, confusion matrix."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.outputs import in_order
from training.recipe import Split
from training.rows import call

Evaluate = Callable[[nn.Module, Split], dict[str, float]]
_BATCH = 100  # samples per forward pass: their activations fit the CPU cache, larger batches are slower


def returns(*figures: str) -> Callable[[Evaluate], Evaluate]:
    """Declare the figures that an `evaluate` always returns, so that a recipe's metric is compared with them."""

    def declared(evaluate: Evaluate) -> Evaluate:
        vars(evaluate)["figures"] = figures
        return evaluate

    return declared


def outputs(network: nn.Module, samples: Any) -> Tensor:
    """Run the network on the samples in eval mode without gradients, then restore its mode.

    `samples` are those of a Split. The network has one output; see `all_outputs`.
    """
    (out,) = all_outputs(network, samples)
    return out


def all_outputs(network: nn.Module, samples: Any, names: Sequence[str] = ()) -> list[Tensor]:
    """Return each of the network's outputs, as `outputs` does: those of a tuple, or of a dictionary by `names`.

    Outputs that are as long as the longest sample of a batch are filled up with zeros to the longest of all.
    """
    training = network.training
    network.eval()
    with torch.inference_mode():
        found = [call(network, batch) for batch in samples.split(_BATCH)]
    network.train(training)
    parts = [in_order(part, names or [""] * (len(part) if isinstance(part, tuple | list) else 1)) for part in found]
    return [_joined(part) for part in zip(*parts, strict=True)]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate outputs (N, ...) of batches."""
    if len({part.shape[1:] for part in parts}) == 1:
        return torch.cat(list(parts))
    largest = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    joined = parts[0].new_zeros(sum(map(len, parts)), *largest)
    row = 0
    for part in parts:
        joined[(slice(row, row + len(part)), *map(slice, part.shape[1:]))] = part
        row += len(part)
    return joined


def accuracy(network: nn.Module, split: Split) -> float:
    """Accuracy: the share of correct answers, in 0..1. Targets are int64 (N,)."""
    return (outputs(network, split.samples).argmax(dim=1) == split.targets).double().mean().item()


@returns("accuracy", "loss", "calibration_error")
def classification(network: nn.Module, split: Split) -> dict[str, float]:
    """Compute `accuracy` (0..1), `loss` (mean negative log likelihood in nats) and `calibration_error`.

    Targets are int64 (N,).
    """
    return classified(outputs(network, split.samples), split.targets)


def classification_by_class(network: nn.Module, split: Split) -> dict[str, float]:
    """Compute the metrics of `classification` and of `by_class`."""
    logits = outputs(network, split.samples)
    return classified(logits, split.targets) | by_class(_counted(logits, split.targets))


def classified(logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Compute the metrics of `classification` from the outputs of a split."""
    return {
        "accuracy": (logits.argmax(dim=1) == targets).double().mean().item(),
        "loss": nn.functional.cross_entropy(logits, targets).item(),
        "calibration_error": calibration_error(logits.softmax(dim=1), targets),
    }


def calibration_error(probabilities: Tensor, targets: Tensor, *, bins: int = 15) -> float:
    """Expected calibration error (ECE, Guo et al. 2017), in 0..1: the mean gap between confidence and accuracy.

    Answers are grouped by confidence into bins of equal width, and compared bin by bin.
    """
    surety, answers = probabilities.double().max(dim=1)
    right = (answers == targets).double()
    place = (surety * bins).ceil().long().clamp(1, bins) - 1  # as in the paper, a bin includes its upper end
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, place, (right - surety).cpu())
    return (gaps.abs().sum() / len(targets)).item()


def confusion(network: nn.Module, split: Split) -> Tensor:
    """Confusion matrix, int64 (classes, classes): a row for each true label, a column for each answer."""
    return _counted(outputs(network, split.samples), split.targets)


def _counted(logits: Tensor, targets: Tensor) -> Tensor:
    classes = logits.shape[1]
    pairs = (targets * classes + logits.argmax(dim=1)).bincount(minlength=classes**2)
    return pairs.reshape(classes, classes).cpu()


def by_class(counts: Tensor) -> dict[str, float]:
    """Metrics of a confusion matrix: `recall_3`, the recall of threes; `confusion_3_5`, threes taken for fives."""
    found = counts.diagonal() / counts.sum(dim=1).clamp(min=1)
    figures = {f"recall_{label}": share.item() for label, share in enumerate(found)}
    wrong = (counts - counts.diagonal().diag()).double()
    return figures | {
        f"confusion_{row}_{column}": wrong[row, column].item() for row, column in wrong.nonzero().tolist()
    }


@returns("mse")
def regression(network: nn.Module, split: Split) -> dict[str, float]:
    """Compute `mse`, the mean squared error. Targets are float32 (N, 1)."""
    return regressed(outputs(network, split.samples), split.targets)


def regressed(values: Tensor, targets: Tensor) -> dict[str, float]:
    """Compute the metrics of `regression` from the outputs of a split."""
    return {"mse": nn.functional.mse_loss(values, targets).item()}
