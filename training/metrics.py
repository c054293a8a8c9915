"""Figures of merit on a split."""

import torch
from torch import Tensor, nn

from training.recipe import Split

_BATCH = 100  # samples at once: their activations stay in the cache, larger batches are slower


def outputs(network: nn.Module, samples: Tensor) -> Tensor:
    """What the network puts out for the samples, in eval mode and without gradients; its mode is then as before."""
    training = network.training
    network.eval()
    with torch.inference_mode():
        out = torch.cat([network(batch) for batch in torch.split(samples, _BATCH)])
    network.train(training)
    return out


def accuracy(network: nn.Module, split: Split) -> float:
    """The share of right answers, in 0..1. Targets are int64 (N,)."""
    return (outputs(network, split.samples).argmax(dim=1) == split.targets).double().mean().item()


def classification(network: nn.Module, split: Split) -> dict[str, float]:
    """`accuracy`, a share in 0..1; `loss`, the mean negative log likelihood in nats; `calibration_error`.

    Targets are int64 (N,).
    """
    return _classified(outputs(network, split.samples), split.targets)


def classification_by_class(network: nn.Module, split: Split) -> dict[str, float]:
    """As `classification`, and `by_class` of the same answers."""
    logits = outputs(network, split.samples)
    return _classified(logits, split.targets) | by_class(_counted(logits, split.targets))


def _classified(logits: Tensor, targets: Tensor) -> dict[str, float]:
    return {
        "accuracy": (logits.argmax(dim=1) == targets).double().mean().item(),
        "loss": nn.functional.cross_entropy(logits, targets).item(),
        "calibration_error": calibration_error(logits.softmax(dim=1), targets),
    }


def calibration_error(probabilities: Tensor, targets: Tensor, *, bins: int = 15) -> float:
    """How far, on average, the surety of the answers is from the share of them that is right, in 0..1.

    The answers are sorted by surety into bins of equal width and compared bin by bin (Guo et al. 2017: ECE).
    """
    surety, answers = probabilities.double().max(dim=1)
    right = (answers == targets).double()
    place = (surety * bins).ceil().long().clamp(1, bins) - 1  # as in the paper, a bin holds its upper end
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, place, (right - surety).cpu())
    return (gaps.abs().sum() / len(targets)).item()


def confusion(network: nn.Module, split: Split) -> Tensor:
    """int64 (classes, classes): how many samples of the class of the row were taken for that of the column."""
    return _counted(outputs(network, split.samples), split.targets)


def _counted(logits: Tensor, targets: Tensor) -> Tensor:
    classes = logits.shape[1]
    pairs = (targets * classes + logits.argmax(dim=1)).bincount(minlength=classes**2)
    return pairs.reshape(classes, classes).cpu()


def by_class(counts: Tensor) -> dict[str, float]:
    """Of a confusion matrix: `recall_3`, the share of the threes that were found; `confusion_3_5`, the threes taken for
    fives, if any.
    """
    found = counts.diagonal() / counts.sum(dim=1).clamp(min=1)
    figures = {f"recall_{label}": share.item() for label, share in enumerate(found)}
    wrong = (counts - counts.diagonal().diag()).double()
    return figures | {
        f"confusion_{row}_{column}": wrong[row, column].item() for row, column in wrong.nonzero().tolist()
    }


def regression(network: nn.Module, split: Split) -> dict[str, float]:
    """`mse`, the mean squared error. Targets are float32 (N, 1)."""
    return {"mse": nn.functional.mse_loss(outputs(network, split.samples), split.targets).item()}
